// A second verifier of tcd receipts: Node's built-ins only, no code of the issuer.
// usage: node verify.mjs KEYSET.json RECEIPTS.json       exit 0 verified, 1 refused, 2 unusable input
//        node verify.mjs KEYSET.json RECEIPTS.jsonl      each line by itself; one result per line
// RECEIPTS: an array of {receipt, receipt_body, receipt_sig, proof?}; more than one are consecutive records of a chain.
// Checked: canonical bytes, common members, head, pinned key and its validity, Ed25519 signature, chain links;
// of a proof: inclusion, origin and Ed25519 signature of the checkpoint, order in the log, keys compromised at a size.
// NOT checked: members of each typ, witness segments, e-process replay, ML-DSA, cosignatures of witnesses.
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
  need(['open', 'decision', 'gap', 'close', 'admin', 'ack', 'rotate', 'heads', 'rewrite'].includes(body.typ), 'schema');
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

const SIZES = { 'Ed25519': 32, 'ML-DSA-44': 1312, 'Ed25519+ML-DSA-44': 1344 };
function loadKeys(keyset) {
  if (keyset.v !== 'tcd.keyset/1') throw new Error('not a tcd.keyset/1');
  return new Map(keyset.keys.map((key) => {
    const raw = Buffer.from(key.pub, 'hex');
    const kid = sha256('tcd/kid/v1\0', key.alg, '\0', raw).toString('hex', 0, 16);
    if (kid !== key.kid || raw.length !== SIZES[key.alg]) throw new Error('bad key');
    if (key.alg !== 'Ed25519') return [kid, key];
    if (!safePoint(raw)) throw new Error('bad key');
    const jwk = { kty: 'OKP', crv: 'Ed25519', x: raw.toString('base64url') };
    return [kid, { ...key, raw, loaded: createPublicKey({ key: jwk, format: 'jwk' }) }];
  }));
}
const signed = (key, message, sig) =>
  sig.length === 64 && safePoint(sig.subarray(0, 32)) && verify(null, message, key.loaded, sig);

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
function inLog(keys, body, head, text) {
  const proof = parseProof(text);
  need(!proof.extra || proof.extra.equals(head), 'leaf_mismatch');
  need(included(proof, sha256('\0', head)), 'bad_inclusion');
  need(proof.origin === body.origin, 'wrong_origin');
  const pinned = [...keys.values()].filter((key) => key.purpose === 'checkpoint' && key.origin === body.origin);
  need(pinned.length, 'unknown_key');
  const good = pinned.filter((key) => key.loaded).filter((key) => {
    const hash = sha256(`${key.origin}\n\u0001`, key.raw).subarray(0, 4);
    const mine = proof.note.lines.filter((line) => line.name === key.origin && line.hash.equals(hash));
    need(mine.every((line) => signed(key, Buffer.from(proof.note.text), line.sig)), 'bad_signature');
    return mine.length;
  });
  need(good.length, 'missing_signature');
  const usable = (key) => key.compromised_after_size === undefined && body.ts_us <= (key.not_after_us ?? Infinity);
  need(good.some(usable), 'key_not_valid');
  return proof.index;
}

function single(keys, { receipt: head, receipt_body: text, receipt_sig: sig, proof }) {
  need(typeof text === 'string', 'not_canonical');
  const body = parse(text);
  common(body);
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
  need(hex(sig, 64), 'bad_signature');
  const prefix = Buffer.from(`tcd/receipt/v2/sig\0${body.suite}\0`);
  const message = Buffer.concat([prefix, Buffer.from(body.kid, 'hex'), raw]);
  need(signed(key, message, Buffer.from(sig, 'hex')), 'bad_signature');
  if (typeof proof !== 'string') return { body, head };
  const index = inLog(keys, body, raw, proof);
  need(stolen === undefined || index < BigInt(stolen), 'key_not_valid');
  return { body, head, index };
}

function link(before, after) {
  const [a, b] = [before.body.chain, after.body.chain];
  need(a.id === b.id, 'chain_id');
  need(a.seq !== b.seq || before.head === after.head, 'fork');
  need(b.seq === a.seq + 1, 'seq_gap');
  need(b.prev === before.head, 'prev_mismatch');
  need(before.body.ts_us <= after.body.ts_us, 'time_order');
  need(before.index === undefined || after.index === undefined || before.index < after.index, 'log_chain_mismatch');
}

function run(keys, receipts) {
  if (!Array.isArray(receipts) || receipts.length < 1 || receipts.length > 1024) throw new Error('1..1024 receipts');
  let index = 0;
  try {
    let before = null;
    for (; index < receipts.length; index += 1) {
      const found = single(keys, receipts[index] ?? {});
      if (before) link(before, found);
      before = found;
    }
    return { ok: true, code: 'ok', records: receipts.length };
  } catch (error) {
    if (!(error instanceof Refused)) throw error;
    return { ok: false, code: error.code, index };
  }
}

let results;
try {
  const keys = loadKeys(JSON.parse(readFileSync(process.argv[2], 'utf8')));
  const text = readFileSync(process.argv[3], 'utf8');
  const lines = process.argv[3].endsWith('.jsonl') ? text.trimEnd().split('\n') : [text];
  results = lines.map((line) => run(keys, JSON.parse(line)));
} catch (error) {
  console.error(error.message);
  process.exit(2);
}
for (const result of results) console.log(JSON.stringify(result));
process.exitCode = results.every((result) => result.ok) ? 0 : 1;
