from __future__ import annotations

import os
import re
from pathlib import Path

import pytest
from pydantic import ValidationError
from typer.testing import CliRunner

from tcd.cli.config import app, table
from tcd.config import FOREIGN, PREFIX, SECRETS, Settings, load, shown
from tcd.errors import ConfigError

ROOT = Path(__file__).resolve().parents[3]
KEY = "ab" * 32


def test_defaults_of_the_original() -> None:
    loaded = load({})
    s = loaded.settings
    assert (s.alpha, s.http_rate_cap, s.http_rate_refill, s.token_cost_divisor) == (0.05, 60, 30, 50)
    assert (s.http_host, s.http_port, s.receipts_enable, s.mode) == ("127.0.0.1", 8080, True, "enforce")
    assert set(loaded.origins.values()) == {"default"}


def test_layers(tmp_path: Path) -> None:
    file = tmp_path / "tcd.toml"
    file.write_text(
        'alpha = 0.01\nhttp_port = 1\nmode = "monitor"\n[[rate_overrides]]\ntenant="a"\ncapacity=5\nrefill=1\n'
    )
    env = {"TCD_CONFIG_PATH": str(file), "TCD_HTTP_PORT": "2", "TCD_MODE": "enforce"}
    loaded = load(env, cli={"http_port": 3, "http_host": None})
    s = loaded.settings
    assert (s.alpha, s.http_port, s.mode, s.http_host) == (0.01, 3, "enforce", "127.0.0.1")
    assert (s.rate_overrides[0].tenant, s.rate_overrides[0].capacity) == ("a", 5)
    assert loaded.origins["alpha"] == f"file {file}"
    assert loaded.origins["mode"] == "env TCD_MODE"
    assert loaded.origins["http_port"] == "command line"
    assert loaded.origins["http_host"] == "default"


def test_the_kept_names_of_the_original_are_known() -> None:
    names = (
        *("RECEIPTS_ENABLE", "ALPHA", "SLO_MS", "PROM_PORT", "GPU_ENABLE", "OTEL_ENABLE", "OTEL_ENDPOINT"),
        *("HTTP_RATE_CAP", "HTTP_RATE_REFILL", "TOKEN_COST_DIVISOR", "POLICIES_JSON", "ATTEST_SK_HEX", "REPLAY_URL"),
    )
    assert {n.lower() for n in names} <= set(Settings.model_fields)
    assert "TCD_CONFIG_PATH" in FOREIGN


def test_every_name_that_the_code_reads_is_known() -> None:
    """No other part may read a TCD_ name that a strict environment would refuse."""
    known = {PREFIX + name.upper() for name in Settings.model_fields} | FOREIGN
    used: set[str] = set()
    for folder in ("tcd", "sidecar_api", "model_repository"):
        for path in (ROOT / folder).rglob("*.py"):
            used |= set(re.findall(r"[\"'](TCD_[A-Z][A-Z0-9_]*)[\"']", path.read_text("utf-8")))
    assert used <= known | {"TCD_"}


@pytest.mark.parametrize(
    ("name", "nearest"),
    [("TCD_ALHPA", "TCD_ALPHA"), ("TCD_RECEIPT_ENABLE", "TCD_RECEIPTS_ENABLE"), ("TCD_CONFIG_PTH", "TCD_CONFIG_PATH")],
)
def test_an_unknown_name_is_an_error_that_names_the_nearest(name: str, nearest: str) -> None:
    with pytest.raises(ConfigError) as error:
        load({name: "1"})
    assert name in error.value.detail
    assert nearest in error.value.detail


def test_an_unknown_name_in_the_file_too(tmp_path: Path) -> None:
    file = tmp_path / "x.toml"
    file.write_text("alhpa = 0.1\n")
    with pytest.raises(ConfigError, match="alhpa is no setting; did you mean alpha"):
        load({}, path=file)
    file.write_text("alpha = \n")
    with pytest.raises(ConfigError, match=re.escape(str(file))):
        load({}, path=file)
    with pytest.raises(ConfigError, match="No such file"):
        load({}, path=tmp_path / "none.toml")


def test_foreign_names_do_not_disturb() -> None:
    assert load({"TCD_TEST_SKIPS": "forbid", "PATH": "x", "tcd_other": "1"}).settings == load({}).settings
    assert load({"TCD_ASSETS": "/x"}).settings.assets == Path("/x")
    assert load({"TCD_ALPHA": ""}).settings.alpha == 0.05


@pytest.mark.parametrize(
    ("name", "value"),
    [
        ("ALPHA", "0"),
        ("ALPHA", "1"),
        ("ALPHA", "nan"),
        ("ALPHA", "x"),
        ("HTTP_PORT", "65536"),
        ("HTTP_PORT", "-1"),
        ("HTTP_PORT", "tcp://10.0.0.1:80"),
        ("MODE", "off"),
        ("DEADLINE_MS", "0"),
        ("DEADLINE_MS", "inf"),
        ("DEADLINE_MS", "20000"),
        ("EPOCH_LENGTH", "0"),
        ("ATTEST_SK_HEX", "ab" * 31),
        ("ATTEST_SK_HEX", "zz" * 32),
        ("API_TOKENS", "[{"),
        ("API_TOKENS", '[{"token":"short","scopes":[]}]'),
        ("API_TOKENS", '[{"token":"long-enough-token","scopes":["root"]}]'),
        ("SCHEDULE", "omega"),
    ],
)
def test_wrong_values_are_refused_and_never_shown(name: str, value: str) -> None:
    with pytest.raises(ConfigError) as error:
        load({PREFIX + name: value})
    if name in {"ATTEST_SK_HEX", "API_TOKENS"}:
        assert value not in error.value.detail
        assert "long-enough-token" not in error.value.detail
    assert error.value.__cause__ is None or not isinstance(error.value.__cause__, ValidationError)


def test_settings_are_immutable() -> None:
    with pytest.raises(ValidationError):
        load({}).settings.alpha = 0.5


def test_the_hash_is_of_the_public_settings() -> None:
    plain = load({}).settings.config_hash
    assert re.fullmatch(r"sha256:[0-9a-f]{64}", plain)
    assert load({"TCD_ATTEST_SK_HEX": KEY}).settings.config_hash == plain
    assert (
        load({"TCD_API_TOKENS": '[{"token":"long-enough-token","scopes":["state:read"]}]'}).settings.config_hash
        == plain
    )
    assert load({"TCD_ALPHA": "0.04"}).settings.config_hash != plain
    assert load({"TCD_ALPHA": "0.050"}).settings.config_hash == plain


def test_secrets_stay_secret() -> None:
    token = "long-enough-token"
    s = load({"TCD_ATTEST_SK_HEX": KEY, "TCD_API_TOKENS": f'[{{"token":"{token}","scopes":["state:read"]}}]'}).settings
    for text in (repr(s), str(s), s.model_dump_json(), *(shown(s, n) for n in Settings.model_fields)):
        assert KEY not in text
        assert token not in text
    assert shown(s, "attest_sk_hex") == "(hidden)"
    assert shown(s, "subject_key_hex") == "(none)"
    assert set(Settings.model_fields) >= SECRETS
    annotated = {
        n for n, f in Settings.model_fields.items() if "Secret" in str(f.annotation) or "ApiToken" in str(f.annotation)
    }
    assert annotated == SECRETS


def test_the_url_of_a_ledger_is_a_secret() -> None:
    url = "postgresql://tcd:hidden-word@db.example/tcd"
    loaded = load({"TCD_LEDGER": url})
    s = loaded.settings
    assert s.ledger == "postgresql"
    assert s.ledger_url is not None
    assert s.ledger_url.get_secret_value() == url
    for text in (repr(s), str(s), s.model_dump_json(), *(shown(s, n) for n in Settings.model_fields)):
        assert "hidden-word" not in text
    assert s.config_hash == load({"TCD_LEDGER": url.replace("hidden", "other")}).settings.config_hash
    for wrong in ("postgresql", "mysql://tcd:hidden-word@db.example/tcd", "hidden-word"):
        with pytest.raises(ConfigError) as refused:
            load({"TCD_LEDGER": wrong})
        assert "hidden-word" not in str(refused.value)
    with pytest.raises(ConfigError, match="postgresql://"):
        load({"TCD_LEDGER_URL": url})


def test_config_show(monkeypatch: pytest.MonkeyPatch) -> None:
    for name in [n for n in os.environ if n.startswith(PREFIX)]:
        monkeypatch.delenv(name)
    monkeypatch.setenv("TCD_ALPHA", "0.01")
    monkeypatch.setenv("TCD_ATTEST_SK_HEX", KEY)
    result = CliRunner().invoke(app, ["show", "--origin"])
    assert result.exit_code == 0
    lines = result.stdout.splitlines()
    assert "alpha = 0.01  # env TCD_ALPHA" in lines
    assert "attest_sk_hex = (hidden)  # env TCD_ATTEST_SK_HEX" in lines
    assert "http_port = 8080  # default" in lines
    assert KEY not in result.output
    assert {line.split(" = ")[0] for line in lines if " = " in line} == set(Settings.model_fields)
    monkeypatch.setenv("TCD_NOPE", "1")
    assert CliRunner().invoke(app, ["show"]).exit_code == 2


def test_the_page_has_every_setting_as_it_is() -> None:
    page = Path(__file__).resolve().parents[3] / "docs" / "configuration.md"
    assert page.read_text().endswith(table()), "run `tcd config reference`"
