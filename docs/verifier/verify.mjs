// A second verifier of tcd receipts: Node's built-ins only, no code of the issuer.
// usage: node verify.mjs KEYSET.json RECEIPTS.json       exit 0 verified, 1 refused, 2 unusable input
//        node verify.mjs KEYSET.json RECEIPTS.jsonl      each line by itself; one result per line
//        node verify.mjs --vectors vectors/receipts.json exit 0 when every case gets its verdict and code
// Node 16 or newer.
// RECEIPTS: an array of {receipt, receipt_body, receipt_sig, proof?}; more than one are consecutive records of a chain.
// Where a body was erased, {receipt, receipt_sig, erased: {kid, origin, suite, tenant}, proof?}: then the code is `erased`
// at best, with `by` where the item has `erased_by`, the `erase` record that names it: {receipt, receipt_body, receipt_sig,
// proof}, proofs of both in a log of one size.
// Checked: canonical bytes, members of each type, head, pinned key and its validity, signatures of both suites, links;
// of a proof: inclusion, origin and signatures of the checkpoint, order in the log, keys compromised at a size.
// NOT checked: witness segments, e-process replay, cosignatures of witnesses.
import { createHash, createPublicKey, verify } from 'node:crypto';
import { readFileSync } from 'node:fs';

const SUITES = new Map([['Ed25519', 64], ['Ed25519+ML-DSA-44', 64 + 2420]]); // bytes of signatures

class Refused extends Error {
  constructor(code) { super(code); this.code = code; }
}
const need = (fine, code) => { if (!fine) throw new Refused(code); };
const hex = (text, bytes) => typeof text === 'string' && text.length === 2 * bytes && /^[0-9a-f]+$/.test(text);
const sha256 = (...parts) => parts.reduce((hash, part) => hash.update(part), createHash('sha256')).digest();
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

// members of each type, docs/receipt-v2.md; a check takes a value and says whether it is one
const MOST = Number.MAX_SAFE_INTEGER;
const KEY = /^[a-z][a-z0-9_]{0,31}$/;
const plain = (value) => value !== null && typeof value === 'object' && !Array.isArray(value);
const int = (low = 0, high = MOST) => (value) => Number.isSafeInteger(value) && value >= low && value <= high;
const flag = (value) => typeof value === 'boolean';
const matching = (regex) => (value) => typeof value === 'string' && regex.test(value);
const real = matching(/^(?!7ff|fff|8000000000000000)[0-9a-f]{16}$/);
const u64 = (value) => matching(/^(0|[1-9][0-9]{0,19})$/)(value) && BigInt(value) < 2n ** 64n;
const text = (high, low = 0) => (value) =>
  typeof value === 'string' && [...value].length >= low && [...value].length <= high;
const hexOf = (bytes) => (value) => hex(value, bytes);
const oneOf = (...values) => (value) => values.includes(value);
const list = (item, high, low = 0) => (value) =>
  Array.isArray(value) && value.length >= low && value.length <= high && value.every(item);
const mapOf = (item, high) => (value) => plain(value) && Object.keys(value).length <= high
  && Object.entries(value).every(([key, member]) => KEY.test(key) && item(member));
const either = (...checks) => (value) => checks.some((check) => check(value));
const record = (required, optional = {}) => {
  const known = new Map([...Object.entries(required), ...Object.entries(optional)]);
  return (value) => plain(value) && Object.keys(required).every((name) => Object.keys(value).includes(name))
    && Object.entries(value).every(([name, member]) => known.has(name) && known.get(name)(member));
};
const all = (check, ...names) => Object.fromEntries(names.map((name) => [name, check]));

const IDS = list(u64, 3, 3);
const UNIT = oneOf('session', 'request', 'block', 'none');
const MODEL = record(all(text(128), 'id', 'gpu', 'task', 'lang'));
const ACTION = oneOf('allow', 'degrade', 'block', 'throttle', 'ask_for_review', 'escalate_to_human');
const REASON = oneOf('end', 'idle', 'horizon', 'pin_changed', 'abandoned', 'epoch_roll', 'shutdown');
const RULE = oneOf('rai', 'lord', 'e_lond', 'alpha_spending', 'foster_stine', 'saffron', 'addis');
const TERM = { ...all(real, 'alpha', 'alpha_e', 'cusum_arl', 'from_spent', 'kappa'), from_index: int(), rule: RULE };
const TERMS = either(
  record({ ...TERM, schedule: oneOf('uniform'), size: int(1) }),
  record({ ...TERM, schedule: oneOf('omega'), size: real }),
);
const EPROC = record({
  kind: oneOf('restart-mixture/1'), ...all(digest, 'stream', 'params', 'prev'), trigger: flag,
  ...all(int(), 'claim', 'step', 'epoch', 'index', 'known'), ...all(int(-MOST), 's_exp2', 'e_exp2', 'c_exp2'),
  ...all(real, 'x', 'alloc', 'spent', 'wealth', 'threshold', 's', 'e', 'c'),
});
const SEGMENT = record({
  name: oneOf('trace', 'entropy', 'spectrum', 'features'), n: int(0, 16384), q: oneOf('affine-u32/1'),
  ...all(real, 'lo', 'hi'), salt: hexOf(16), digest,
});
const ROTATE = [['Ed25519', 32, 64], ['Ed25519+ML-DSA-44', 1344, 2484]].map(([alg, pub, sig]) =>
  record({ alg: oneOf(alg), pub: hexOf(pub), kid: hexOf(16), from_us: int(), proof: hexOf(sig) }));
const BASE = {
  v: oneOf('tcd.receipt/2'), typ: text(16), suite: (value) => SUITES.has(value), kid: hexOf(16), nonce: hexOf(16),
  ...all(name, 'origin', 'tenant'), ...all(digest, 'config', 'policy'), ts_us: int(),
  chain: record({ id: digest, seq: int(), prev: hexOf(32) }),
};
const TYPES = new Map(Object.entries({
  open: [{ open: either(
    record({ scope: oneOf('session'), subject: digest, model: MODEL, unit: UNIT,
      pins: record({ keys: IDS, mask: int(0, 15), assets: IDS, weight: real }) }),
    record({ scope: oneOf('epoch'), stream: digest, epoch: int(), claim_level: real, terms: TERMS }),
  ) }],
  decision: [{
    ...all(digest, 'subject', 'req', 'comp', 'e'), model: MODEL, eproc: EPROC, guarantee: text(512, 1), assets: IDS,
    evidence: oneOf('shim', 'caller'), witness: list(SEGMENT, 8),
    decision: record({
      ...all(flag, 'verdict', 'trigger'), ...all(real, 'score', 'threshold'), ...all(ACTION, 'action', 'enforced'),
      cause: oneOf('detector', 'av', 'policy', 'budget', 'degraded', 'trust', 'slo', ''), ...all(int(), 'step', 'status'),
      tags: list(text(64, 1), 16),
    }),
    route: record({
      ...all(int(), 'temperature_e6', 'top_p_e6', 'max_tokens'), tier: oneOf('normal', 'cautious', 'strict'),
      decoder: oneOf('default', 'sample', 'greedy', 'no_repeat'),
    }),
    components: mapOf(record({ triggered: flag, ...all(real, 'severity', 'p', 'z') }), 16),
    av: record({
      unit: UNIT, ...all(digest, 'stream', 'hypothesis'), ...all(int(), 'epoch', 'index', 'seq', 'known'),
      ...all(real, 'alloc', 'spent', 'wealth', 'p', 'p_floor'), sup: list(real, 2, 2), exhausted: flag,
    }),
  }, { risk: record({
    tier: int(0, 2), ...all(flag, 'alarm', 'floor', 'failed'), ...all(real, 'spent', 'distrust', 'pressure'),
  }) }],
  gap: [{ gap: record({ ...all(int(), 'from', 'to'), reason: name }) }],
  close: [{ close: record({ reason: REASON, count: int(1) }) }, { eproc: EPROC }],
  admin: [{ admin: record({ ...all(name, 'action', 'actor'), object: digest }, { reason: name }) }],
  ack: [{ ack: record({ actor: name, stream: digest, claim: int(), terms: TERMS }) }],
  rotate: [{ rotate: either(...ROTATE) }],
  heads: [{ heads: record({ count: int(), root: hexOf(32) }) }],
  rewrite: [{ subject: digest, model: MODEL, rewrite: record({
    ...all(digest, 'outcome', 'before', 'after'), ...all(flag, 'rewritten', 'shadow'), zones: int(), delta: int(-MOST),
    marking: oneOf('datamark', 'delimit', 'encode', 'none'), failures: list(text(64, 1), 16),
  }) }],
  erase: [{ erase: record({ actor: name, reason: oneOf('subject', 'age'), count: int(1), leaves: list(int(), 400, 2),
    heads: digest }) }],
}).map(([typ, [own, optional]]) => [typ, record({ ...BASE, ...own }, optional)]));

function runs({ leaves, count }) { // first place and number of each run, in order
  let [total, end] = [0, -1];
  for (let at = 0; at < leaves.length; at += 2) {
    if (!(leaves[at + 1] > 0) || leaves[at] <= end) return false;
    end = leaves[at] + leaves[at + 1];
    total += leaves[at + 1];
  }
  return total === count;
}
function members(body) {
  need(plain(body), 'schema');
  if (typeof body.v === 'string') need(body.v === 'tcd.receipt/2', 'version');
  if (typeof body.suite === 'string') need(SUITES.has(body.suite), 'version');
  need(TYPES.has(body.typ) && TYPES.get(body.typ)(body), 'schema');
  const { chain } = body;
  const first = [chain.seq === 0, chain.prev === '0'.repeat(64), body.typ === 'open'];
  need(first.every((item) => item === first[0]), 'schema');
  need(body.typ !== 'close' || body.close.count === chain.seq + 1, 'schema');
  need(body.typ !== 'gap' || body.gap.from <= body.gap.to, 'schema');
  need(body.typ !== 'erase' || runs(body.erase), 'schema');
  const names = (body.witness ?? []).map((segment) => segment.name);
  need(new Set(names).size === names.length, 'schema');
}

// small order: y in {0, 1, -1, +-y8}; anything whose y is not below p is not canonical
const P = 2n ** 255n - 19n;
const Y8 = 0x7a03ac9277fdc74ec6cc392cfa53202a0f67100d760b3cba4fd84d3d706a17c7n;
function safePoint(bytes) {
  const y = BigInt('0x' + Buffer.from(bytes).reverse().toString('hex')) & (2n ** 255n - 1n);
  return y < P && ![0n, 1n, P - 1n, Y8, P - Y8].includes(y);
}

// ML-DSA-44 verification (FIPS 204, algorithms 3 and 8). All of it is public: nothing needs constant time.
const Q = 8380417;
const [K, L, GAMMA1, GAMMA2, BETA, TAU, OMEGA] = [4, 4, 2 ** 17, (Q - 1) / 88, 78, 39, 80];
const shake = (bits, length, ...parts) =>
  parts.reduce((hash, part) => hash.update(part), createHash(`shake${bits}`, { outputLength: length })).digest();
const times = (a, b) => Number((BigInt(a) * BigInt(b)) % BigInt(Q));
const modQ = (a) => ((a % Q) + Q) % Q;
function mul(a, b) { // below 2^53 in two steps: b = high 2^12 + low
  const low = b & 4095;
  return (((a * ((b - low) / 4096)) % Q) * 4096 + a * low) % Q;
}
const ZETAS = Array.from({ length: 256 }, (_, i) => {
  let [power, base, bits] = [1, 1753, 0];
  for (let j = 0; j < 8; j += 1) bits |= ((i >> j) & 1) << (7 - j);
  for (; bits; bits >>= 1) { if (bits & 1) power = times(power, base); base = times(base, base); }
  return power;
});
function ntt(poly) {
  const w = poly.slice();
  for (let [length, m] = [128, 0]; length >= 1; length >>= 1) {
    for (let start = 0; start < 256; start += 2 * length) {
      const z = ZETAS[m += 1];
      for (let j = start; j < start + length; j += 1) {
        const t = mul(w[j + length], z);
        w[j + length] = (w[j] - t + Q) % Q;
        w[j] = (w[j] + t) % Q;
      }
    }
  }
  return w;
}
const INVERSE = 8347681; // of 256
function inverseNtt(poly) {
  const w = poly.slice();
  for (let [length, m] = [1, 256]; length < 256; length *= 2) {
    for (let start = 0; start < 256; start += 2 * length) {
      const z = Q - ZETAS[m -= 1];
      for (let j = start; j < start + length; j += 1) {
        const t = w[j];
        w[j] = (t + w[j + length]) % Q;
        w[j + length] = mul((t - w[j + length] + Q) % Q, z);
      }
    }
  }
  return w.map((value) => mul(value, INVERSE));
}
function unpack(bytes, bits) { // 256 little-endian numbers
  const out = [];
  let [held, have] = [0, 0];
  for (const byte of bytes) {
    held += byte * 2 ** have;
    have += 8;
    while (have >= bits) { out.push(held % 2 ** bits); held = Math.floor(held / 2 ** bits); have -= bits; }
  }
  return out;
}
function expandA(rho) { // RejNTTPoly for each place
  return Array.from({ length: K }, (_, r) => Array.from({ length: L }, (__, s) => {
    const out = [];
    for (let size = 1024; ; size *= 2) {
      const stream = shake(128, size, rho, Uint8Array.of(s, r));
      out.length = 0;
      for (let at = 0; at + 3 <= size && out.length < 256; at += 3) {
        const value = stream[at] | (stream[at + 1] << 8) | ((stream[at + 2] & 127) << 16);
        if (value < Q) out.push(value);
      }
      if (out.length === 256) return out;
    }
  }));
}
function sampleInBall(seed) {
  const c = new Array(256).fill(0);
  const stream = shake(256, 1024, seed);
  const signs = stream.readBigUInt64LE(0);
  let at = 8;
  for (let i = 256 - TAU, n = 0n; i < 256; i += 1, n += 1n) {
    while (stream[at] > i) at += 1;
    const j = stream[at];
    at += 1;
    c[i] = c[j];
    c[j] = (signs >> n) & 1n ? Q - 1 : 1;
  }
  return c;
}
function hints(bytes) { // HintBitUnpack: null where the encoding is not the one
  const out = Array.from({ length: K }, () => new Array(256).fill(0));
  let index = 0;
  for (let i = 0; i < K; i += 1) {
    const end = bytes[OMEGA + i];
    if (end < index || end > OMEGA) return null;
    for (const first = index; index < end; index += 1) {
      if (index > first && bytes[index - 1] >= bytes[index]) return null;
      out[i][bytes[index]] = 1;
    }
  }
  return bytes.subarray(index, OMEGA).every((byte) => byte === 0) ? out : null;
}
function useHint(hint, value) {
  let low = value % (2 * GAMMA2);
  if (low > GAMMA2) low -= 2 * GAMMA2;
  const last = value - low === Q - 1;
  const high = last ? 0 : (value - low) / (2 * GAMMA2);
  if (!hint) return high;
  return (high + ((last ? low - 1 : low) > 0 ? 1 : 43)) % 44;
}
function expandKey(raw) {
  const rho = raw.subarray(0, 32);
  const t1 = Array.from({ length: K }, (_, i) => unpack(raw.subarray(32 + 320 * i, 352 + 320 * i), 10));
  return { a: expandA(rho), t: t1.map((poly) => ntt(poly.map((v) => v * 8192))), tr: shake(256, 64, raw) };
}
function verifyMlDsa({ a, t, tr }, message, context, sig) {
  if (sig.length !== 2420) return false;
  const z = Array.from({ length: L }, (_, i) =>
    unpack(sig.subarray(32 + 576 * i, 608 + 576 * i), 18).map((v) => GAMMA1 - v));
  const hint = hints(sig.subarray(32 + 576 * L));
  if (!hint || z.some((poly) => poly.some((v) => Math.abs(v) >= GAMMA1 - BETA))) return false;
  const mu = shake(256, 64, tr, Uint8Array.of(0, context.length), context, message);
  const c = ntt(sampleInBall(sig.subarray(0, 32)));
  const high = z.map((poly) => ntt(poly.map(modQ)));
  const packed = Buffer.alloc(K * 192);
  for (let i = 0; i < K; i += 1) {
    const sum = c.map((value, j) => {
      let total = Q - mul(value, t[i][j]);
      for (let s = 0; s < L; s += 1) total += mul(a[i][s][j], high[s][j]);
      return total % Q;
    });
    const w = inverseNtt(sum).map((value, j) => useHint(hint[i][j], value));
    for (let j = 0; j < 256; j += 4) { // six bits each
      const word = w[j] | (w[j + 1] << 6) | (w[j + 2] << 12) | (w[j + 3] << 18);
      packed.writeUIntLE(word, 192 * i + (3 * j) / 4, 3);
    }
  }
  return shake(256, 32, mu, packed).equals(sig.subarray(0, 32));
}

const SIZES = { 'Ed25519': 32, 'ML-DSA-44': 1312, 'Ed25519+ML-DSA-44': 1344 };
function loadKeys(keyset) {
  if (keyset.v !== 'tcd.keyset/1') throw new Error('not a tcd.keyset/1');
  return new Map(keyset.keys.map((key) => {
    const raw = Buffer.from(key.pub, 'hex');
    const kid = sha256('tcd/kid/v1\0', key.alg, '\0', raw).toString('hex', 0, 16);
    if (kid !== key.kid || raw.length !== SIZES[key.alg]) throw new Error('bad key');
    const classic = key.alg === 'ML-DSA-44' ? null : raw.subarray(0, 32);
    const quantum = key.alg === 'Ed25519' ? null : expandKey(raw.subarray(classic ? 32 : 0));
    if (classic && !safePoint(classic)) throw new Error('bad key');
    const jwk = classic && { kty: 'OKP', crv: 'Ed25519', x: classic.toString('base64url') };
    return [kid, { ...key, raw, quantum, classic: jwk && createPublicKey({ key: jwk, format: 'jwk' }) }];
  }));
}
const signedClassic = (key, message, sig) =>
  sig.length === 64 && safePoint(sig.subarray(0, 32)) && verify(null, message, key.classic, sig);
const signed = (key, message, sig, context) => {
  const first = key.classic ? 64 : 0;
  if (key.classic && !signedClassic(key, message, sig.subarray(0, 64))) return false;
  return key.quantum ? verifyMlDsa(key.quantum, message, context, sig.subarray(first)) : sig.length === first;
};

// C2SP tlog-proof and tlog-checkpoint, RFC 9162
function base64(text, code) {
  const raw = Buffer.from(text, 'base64');
  need(raw.toString('base64') === text, code);
  return raw;
}
function number(text, code) {
  need(/^(0|[1-9][0-9]{0,18})$/.test(text) && BigInt(text) < 2n ** 63n, code);
  return BigInt(text);
}
function parseNote(text) {
  need(Buffer.byteLength(text) <= 65536 && !/[\u0000-\u0009\u000b-\u001f]/.test(text), 'malformed_note');
  const at = text.lastIndexOf('\n\n');
  need(at >= 0 && text.endsWith('\n') && at + 2 < text.length, 'malformed_note');
  const lines = text.slice(at + 2, -1).split('\n');
  need(lines.length <= 16, 'malformed_note');
  return { text: text.slice(0, at + 1), lines: lines.map((line) => {
    const found = /^\u2014 ([^\p{White_Space}+]+) ([^ ]+)$/u.exec(line);
    need(found, 'malformed_note');
    const raw = base64(found[2], 'malformed_note');
    need(raw.length > 4, 'malformed_note');
    return { name: found[1], hash: raw.subarray(0, 4), sig: raw.subarray(4) };
  }) };
}
function parseProof(text) {
  need(!/\p{Surrogate}/u.test(text), 'bad_string');
  const at = text.indexOf('\n\n');
  need(Buffer.byteLength(text) <= 65536 + 16384 && at >= 0 && at + 2 < text.length, 'malformed_note');
  const lines = text.slice(0, at).split('\n');
  need(lines.shift() === 'c2sp.org/tlog-proof@v1', 'malformed_note');
  const extra = lines[0]?.startsWith('extra ') ? base64(lines.shift().slice(6), 'malformed_note') : null;
  need(lines[0]?.startsWith('index ') && lines.length <= 65, 'malformed_note');
  const index = number(lines.shift().slice(6), 'malformed_note');
  const path = lines.map((line) => base64(line, 'malformed_note'));
  need(path.every((item) => item.length === 32), 'malformed_note');
  const note = parseNote(text.slice(at + 2));
  const [origin, size, root, ...rest] = note.text.split('\n');
  need(rest.length >= 1 && rest.pop() === '' && [origin, size, root, ...rest].every(Boolean), 'malformed_checkpoint');
  const head = { origin, size: number(size, 'malformed_checkpoint'), root: base64(root, 'malformed_checkpoint') };
  need(head.root.length === 32, 'malformed_checkpoint');
  return { index, path, extra, note, ...head };
}
function included({ index, path, size, root }, leaf) {
  if (index >= size) return false;
  let [first, last, node] = [index, size - 1n, leaf];
  for (const item of path) {
    if (last === 0n) return false;
    if (first & 1n || first === last) {
      node = sha256('\u0001', item, node);
      while (first && !(first & 1n)) { first >>= 1n; last >>= 1n; }
    } else {
      node = sha256('\u0001', node, item);
    }
    first >>= 1n; last >>= 1n;
  }
  return last === 0n && node.equals(root);
}
function cosigned({ origin, size, root }, time) { // C2SP tlog-cosignature; the log is its own cosigner
  const named = Buffer.concat([Uint8Array.of(Buffer.byteLength(origin)), Buffer.from(origin)]);
  const numbers = Buffer.alloc(24);
  numbers.writeBigUInt64BE(time, 0);
  numbers.writeBigUInt64BE(size, 16);
  const parts = [Buffer.from('subtree/v1\n\0'), named, numbers.subarray(0, 8), named, numbers.subarray(8), root];
  return Buffer.concat(parts);
}
function inLog(keys, body, head, text) {
  const proof = parseProof(text);
  need(!proof.extra || proof.extra.equals(head), 'leaf_mismatch');
  need(included(proof, sha256('\0', head)), 'bad_inclusion');
  need(proof.origin === body.origin, 'wrong_origin');
  const pinned = [...keys.values()].filter((key) => key.purpose === 'checkpoint' && key.origin === body.origin);
  need(pinned.length, 'unknown_key');
  let newest = 0n;
  const good = pinned.filter((key) => {
    const hash = sha256(`${key.origin}\n`, Uint8Array.of(key.quantum ? 6 : 1), key.raw).subarray(0, 4);
    const mine = proof.note.lines.filter((line) => line.name === key.origin && line.hash.equals(hash));
    for (const { sig } of mine) {
      const time = key.quantum && sig.length > 8 ? sig.readBigUInt64BE(0) : 0n;
      const fine = key.quantum
        ? time < 2n ** 63n && signed(key, cosigned(proof, time), sig.subarray(8), Buffer.alloc(0))
        : signed(key, Buffer.from(proof.note.text), sig);
      need(fine, 'bad_signature');
      if (time > newest) newest = time;
    }
    return mine.length;
  });
  const micros = newest * 1000000n;
  const latest = micros > BigInt(body.ts_us) ? micros : BigInt(body.ts_us);
  const usable = good.filter((key) => key.compromised_after_size === undefined
    && (key.not_after_us === undefined || latest <= BigInt(key.not_after_us))
    && (key.not_before_us === undefined || !newest || micros >= BigInt(key.not_before_us) - 1000000n));
  need(usable.length || !good.length, 'key_not_valid');
  need(usable.some((key) => !key.quantum), 'missing_signature');
  return proof.index;
}

function single(keys, { receipt: head, receipt_body: text, receipt_sig: sig, proof }) {
  need(typeof text === 'string', 'not_canonical');
  const body = parse(text);
  members(body);
  const raw = sha256('tcd/receipt/v2/head\0', text);
  need(head === raw.toString('hex'), 'head_mismatch');
  const key = keys.get(body.kid);
  need(key, 'unknown_key');
  need(key.purpose === 'receipt' && key.origin === body.origin && key.alg === body.suite, 'key_not_authorised');
  need(!key.tenants || key.tenants.includes(body.tenant), 'key_not_authorised');
  need(body.ts_us >= (key.not_before_us ?? 0) && body.ts_us <= (key.not_after_us ?? Infinity), 'key_not_valid');
  const stolen = key.compromised_after_size;
  need(stolen === undefined || typeof proof === 'string', 'key_not_valid');
  need(sig !== undefined && sig !== null, 'missing_signature');
  need(body.suite === 'Ed25519' || ![128, 4840].includes(sig.length), 'missing_signature');
  need(hex(sig, SUITES.get(body.suite)), 'bad_signature');
  const prefix = Buffer.from(`tcd/receipt/v2/sig\0${body.suite}\0`);
  const message = Buffer.concat([prefix, Buffer.from(body.kid, 'hex'), raw]);
  need(signed(key, message, Buffer.from(sig, 'hex'), Buffer.from('tcd/receipt/v2')), 'bad_signature');
  if (typeof proof !== 'string') return { body, head };
  const index = inLog(keys, body, raw, proof);
  need(stolen === undefined || index < BigInt(stolen), 'key_not_valid');
  return { body, head, index };
}

// what is left of a record whose body was erased: its head, who signed it, and where the log has it
function left(keys, { receipt: head, receipt_sig: sig, erased, proof }) {
  need(record({ kid: hexOf(16), suite: (value) => SUITES.has(value), ...all(name, 'origin', 'tenant') })(erased), 'schema');
  need(hex(head, 32), 'head_mismatch');
  const key = keys.get(erased.kid);
  need(key, 'unknown_key');
  need(key.purpose === 'receipt' && key.origin === erased.origin && key.alg === erased.suite, 'key_not_authorised');
  need(!key.tenants || key.tenants.includes(erased.tenant), 'key_not_authorised');
  const raw = Buffer.from(head, 'hex');
  const index = typeof proof === 'string' ? inLog(keys, { origin: erased.origin, ts_us: 0 }, raw, proof) : undefined;
  const stolen = key.compromised_after_size;
  need(stolen === undefined || (index !== undefined && index < BigInt(stolen)), 'key_not_valid');
  need(hex(sig, SUITES.get(erased.suite)), 'bad_signature');
  const prefix = Buffer.from(`tcd/receipt/v2/sig\0${erased.suite}\0`);
  const message = Buffer.concat([prefix, Buffer.from(erased.kid, 'hex'), raw]);
  need(signed(key, message, Buffer.from(sig, 'hex'), Buffer.from('tcd/receipt/v2')), 'bad_signature');
  return { head, index };
}

// the record that erased a body: one of the same log, which names its place; both proofs are of one size of it
function eraser(keys, { proof, erased_by: by }, place) {
  const { body, index } = single(keys, by);
  const log = (text) => text.split('\n\n')[1]; // origin, size, root
  need(body.typ === 'erase' && index !== undefined && place !== undefined && log(by.proof) === log(proof), 'schema');
  const { leaves, actor, reason } = body.erase;
  const [first, count] = [leaves.at(-2), leaves.at(-1)];
  need(BigInt(first) + BigInt(count) <= index, 'schema');
  const names = (start, at) => at % 2 === 0 && place >= BigInt(start) && place < BigInt(start) + BigInt(leaves[at + 1]);
  need(leaves.some(names), 'schema');
  return { record: by.receipt, index: Number(index), ts_us: body.ts_us, actor, reason };
}

function link(before, after, skipped) { // `skipped` erased records are between them
  const [a, b] = [before.body.chain, after.body.chain];
  need(a.id === b.id, 'chain_id');
  need(skipped || a.seq !== b.seq || before.head === after.head, 'fork');
  need(b.seq === a.seq + 1 + skipped, 'seq_gap');
  need(skipped || b.prev === before.head, 'prev_mismatch');
  need(before.body.ts_us <= after.body.ts_us, 'time_order');
  need(before.index === undefined || after.index === undefined || before.index < after.index, 'log_chain_mismatch');
}

function run(keys, receipts) {
  if (!Array.isArray(receipts) || receipts.length < 1 || receipts.length > 1024) throw new Error('1..1024 receipts');
  let index = 0;
  const by = [];
  try {
    let [before, last, skipped, gone] = [null, null, 0, -1];
    for (; index < receipts.length; index += 1) {
      const item = receipts[index] ?? {};
      const erased = item.erased !== undefined;
      const found = erased ? left(keys, item) : single(keys, item);
      if (!erased) {
        if (before) link(before, found, skipped);
        if (skipped) need(found.body.chain.prev === last.head && found.body.chain.seq >= skipped, 'prev_mismatch');
      }
      need(!last || last.index === undefined || found.index === undefined || last.index < found.index,
        'log_chain_mismatch');
      if (erased && item.erased_by !== undefined) by.push({ receipt: index, ...eraser(keys, item, found.index) });
      if (erased && gone < 0) gone = index;
      [before, skipped, last] = erased ? [before, skipped + 1, found] : [found, 0, found];
    }
    if (gone >= 0) return { ok: false, code: 'erased', index: gone, ...(by.length ? { by } : {}) };
    return { ok: true, code: 'ok', records: receipts.length };
  } catch (error) {
    if (!(error instanceof Refused)) throw error;
    return { ok: false, code: error.code, index };
  }
}

function vectors({ keyset, cases }) {
  const keys = loadKeys(keyset);
  return cases.map(({ name: title, receipts, ok, code }) => {
    const found = run(keys, receipts);
    return { ok: found.ok === ok && found.code === code, name: title, code: found.code };
  });
}

let results;
try {
  const [first, second] = process.argv.slice(2);
  const text = readFileSync(second, 'utf8');
  if (first === '--vectors') {
    results = vectors(JSON.parse(text));
  } else {
    const keys = loadKeys(JSON.parse(readFileSync(first, 'utf8')));
    const lines = second.endsWith('.jsonl') ? text.trimEnd().split('\n') : [text];
    results = lines.map((line) => run(keys, JSON.parse(line)));
  }
} catch (error) {
  console.error(error.message);
  process.exit(2);
}
for (const result of results) console.log(JSON.stringify(result));
process.exitCode = results.every((result) => result.ok) ? 0 : 1;
