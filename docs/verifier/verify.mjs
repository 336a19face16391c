// A second verifier of tcd receipts: Node's built-ins only, no code of the issuer.
// usage: node verify.mjs KEYSET.json RECEIPTS.json      exit 0 verified, 1 refused, 2 unusable input
// RECEIPTS.json: an array of {receipt, receipt_body, receipt_sig}; more than one are consecutive records of a chain.
// Checked: canonical bytes, common members, head, pinned key and its validity, Ed25519 signature, chain links.
// NOT checked: members of each typ, witness segments, e-process replay, inclusion proofs, checkpoints, ML-DSA.
import { createHash, createPublicKey, verify } from 'node:crypto';
import { readFileSync } from 'node:fs';

class Refused extends Error {
  constructor(code) { super(code); this.code = code; }
}
const need = (fine, code) => { if (!fine) throw new Refused(code); };
const hex = (text, bytes) => typeof text === 'string' && text.length === 2 * bytes && /^[0-9a-f]+$/.test(text);
const sha256 = (...parts) => parts.reduce((hash, part) => hash.update(part), createHash('sha256')).digest();
const count = (value) => Number.isSafeInteger(value) && value >= 0;
const name = (value) => typeof value === 'string' && value !== '' && [...value].length <= 128;
const digest = (value) => typeof value === 'string' && /^sha256:[0-9a-f]{64}$/.test(value);

function encode(value) {
  if (typeof value === 'string') {
    need(!/\p{Surrogate}/u.test(value) && !/[\u0000-\u001f]/.test(value), 'bad_string');
    return '"' + value.replace(/["\\]/g, '\\$&') + '"';
  }
  if (Array.isArray(value)) return '[' + value.map(encode).join(',') + ']';
  if (value !== null && typeof value === 'object') {
    const keys = Object.keys(value).sort();
    need(keys.every((key) => /^[a-z][a-z0-9_]{0,31}$/.test(key)), 'not_canonical');
    return '{' + keys.map((key) => `"${key}":${encode(value[key])}`).join(',') + '}';
  }
  return String(value);
}

function parse(text) {
  need(text.length <= 512000, 'limit');
  need(!/\p{Surrogate}/u.test(text), 'bad_string');
  // an unclosed string reaches to the end, so that no quote is looked at twice
  const bare = text.replace(/"[^"\\]*(?:\\[^][^"\\]*)*(?:"|\\?$)/g, '""');
  let depth = 0;
  for (const char of bare) {
    if (char === '{' || char === '[') need(++depth <= 8, 'limit');
    if (char === '}' || char === ']') depth -= 1;
  }
  const filled = bare.split(/[{[]/).length - 1 - (bare.match(/\{\}|\[\]/g) ?? []).length;
  need(bare.split(',').length - 1 + filled <= 512, 'limit');
  for (const token of bare.match(/-?\d[\d.eE+-]*/g) ?? []) {
    need(/^(0|-?[1-9]\d*)$/.test(token) && Number.isSafeInteger(Number(token)), 'bad_number');
  }
  let value;
  try { value = JSON.parse(text); } catch { throw new Refused('not_canonical'); }
  need(encode(value) === text, 'not_canonical');
  return value;
}

function common(body) {
  need(body !== null && typeof body === 'object' && !Array.isArray(body), 'schema');
  if (typeof body.v === 'string') need(body.v === 'tcd.receipt/2', 'version');
  if (typeof body.suite === 'string') need(body.suite === 'Ed25519', 'version');
  const { chain } = body;
  need(['open', 'decision', 'gap', 'close', 'admin', 'ack', 'rotate', 'heads'].includes(body.typ), 'schema');
  need(body.v && body.suite && hex(body.kid, 16) && hex(body.nonce, 16) && count(body.ts_us), 'schema');
  need(name(body.origin) && name(body.tenant) && digest(body.config) && digest(body.policy), 'schema');
  need(chain && Object.keys(chain).length === 3 && digest(chain.id) && count(chain.seq) && hex(chain.prev, 32), 'schema');
  const first = [chain.seq === 0, chain.prev === '0'.repeat(64), body.typ === 'open'];
  need(first.every((item) => item === first[0]), 'schema');
}

// small order: y in {0, 1, -1, +-y8}; anything whose y is not below p is not canonical
const P = 2n ** 255n - 19n;
const Y8 = 0x7a03ac9277fdc74ec6cc392cfa53202a0f67100d760b3cba4fd84d3d706a17c7n;
function safePoint(bytes) {
  const y = BigInt('0x' + Buffer.from(bytes).reverse().toString('hex')) & (2n ** 255n - 1n);
  return y < P && ![0n, 1n, P - 1n, Y8, P - Y8].includes(y);
}

function loadKeys(keyset) {
  if (keyset.v !== 'tcd.keyset/1') throw new Error('not a tcd.keyset/1');
  return new Map(keyset.keys.map((key) => {
    const raw = Buffer.from(key.pub, 'hex');
    const kid = sha256('tcd/kid/v1\0', key.alg, '\0', raw).toString('hex', 0, 16);
    if (key.alg !== 'Ed25519' || kid !== key.kid || raw.length !== 32 || !safePoint(raw)) throw new Error('bad key');
    const jwk = { kty: 'OKP', crv: 'Ed25519', x: raw.toString('base64url') };
    return [kid, { ...key, loaded: createPublicKey({ key: jwk, format: 'jwk' }) }];
  }));
}

function single(keys, { receipt: head, receipt_body: text, receipt_sig: sig }) {
  need(typeof text === 'string', 'not_canonical');
  const body = parse(text);
  common(body);
  need(head === sha256('tcd/receipt/v2/head\0', text).toString('hex'), 'head_mismatch');
  const key = keys.get(body.kid);
  need(key, 'unknown_key');
  need(key.purpose === 'receipt' && key.origin === body.origin, 'key_not_authorised');
  need(!key.tenants || key.tenants.includes(body.tenant), 'key_not_authorised');
  need(body.ts_us >= (key.not_before_us ?? 0) && body.ts_us <= (key.not_after_us ?? Infinity), 'key_not_valid');
  need(key.compromised_after_size === undefined, 'key_not_valid');
  need(sig !== undefined && sig !== null, 'missing_signature');
  need(hex(sig, 64) && safePoint(Buffer.from(sig, 'hex').subarray(0, 32)), 'bad_signature');
  const prefix = Buffer.from(`tcd/receipt/v2/sig\0${body.suite}\0`);
  const message = Buffer.concat([prefix, Buffer.from(body.kid, 'hex'), Buffer.from(head, 'hex')]);
  need(verify(null, message, key.loaded, Buffer.from(sig, 'hex')), 'bad_signature');
  return { body, head };
}

function link(before, after) {
  const [a, b] = [before.body.chain, after.body.chain];
  need(a.id === b.id, 'chain_id');
  need(a.seq !== b.seq || before.head === after.head, 'fork');
  need(b.seq === a.seq + 1, 'seq_gap');
  need(b.prev === before.head, 'prev_mismatch');
  need(before.body.ts_us <= after.body.ts_us, 'time_order');
}

let keys, receipts;
try {
  keys = loadKeys(JSON.parse(readFileSync(process.argv[2], 'utf8')));
  receipts = JSON.parse(readFileSync(process.argv[3], 'utf8'));
  if (!Array.isArray(receipts) || receipts.length < 1 || receipts.length > 1024) throw new Error('1..1024 receipts');
} catch (error) {
  console.error(error.message);
  process.exit(2);
}
let index = 0;
try {
  let before = null;
  for (; index < receipts.length; index += 1) {
    const found = single(keys, receipts[index] ?? {});
    if (before) link(before, found);
    before = found;
  }
  console.log(JSON.stringify({ ok: true, code: 'ok', records: receipts.length }));
} catch (error) {
  if (!(error instanceof Refused)) throw error;
  console.log(JSON.stringify({ ok: false, code: error.code, index }));
  process.exitCode = 1;
}
