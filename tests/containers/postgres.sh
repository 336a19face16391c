set -e
bin=$(echo /usr/lib/postgresql/*/bin)
data=/var/lib/postgresql/data
mkdir -p "$data/db" /run/postgresql
chown -R postgres "$data" /run/postgresql
if [ ! -s "$data/db/PG_VERSION" ]; then
  echo "$POSTGRES_PASSWORD" > /run/postgresql/pw
  su postgres -c "$bin/initdb -A scram-sha-256 -U $POSTGRES_USER --pwfile=/run/postgresql/pw -D $data/db" >/dev/null
  echo "host all all all scram-sha-256" >> "$data/db/pg_hba.conf"
  echo "CREATE DATABASE $POSTGRES_DB" | su postgres -c "$bin/postgres --single -j -D $data/db postgres" >/dev/null || true
fi
exec su postgres -c "exec $bin/postgres -D $data/db -c listen_addresses='*'"
