/**
 * A stranger's client of the Gesell ledger, written from protocol/SPEC.md alone.
 *
 * Owns: the proof that the published page is enough. Everything that the page asks of a client is here once
 * more, in another language: canonical MessagePack, did:key, ids, envelopes, seals, leaf hashes, the law of
 * demurrage and the postings that follow from the statements.
 * Must not know: any code of this project, any npm package. It uses Node's own WebCrypto and fetch only.
 *
 *     node stranger.mjs http://127.0.0.1:PORT    lives a small story on a running ledger and checks every answer
 *     node stranger.mjs --selftest               checks its own tools against published vectors, without a ledger
 *
 * Success prints one line of JSON, {"ok":true,"checks":N,…}, and exits 0; else it prints what differs, exits 1.
 * It is one long file on purpose: who writes a client elsewhere can read it from top to bottom, or take it along.
 */

const { subtle } = globalThis.crypto;
const utf8 = new TextEncoder();

// ---------------------------------------------------------------------------------------------- bytes

const concat = (...parts) => {
  const whole = new Uint8Array(parts.reduce((sum, part) => sum + part.length, 0));
  let offset = 0;
  for (const part of parts) {
    whole.set(part, offset);
    offset += part.length;
  }
  return whole;
};

const compareBytes = (a, b) => {
  const shared = Math.min(a.length, b.length);
  for (let i = 0; i < shared; i += 1) if (a[i] !== b[i]) return a[i] - b[i];
  return a.length - b.length;
};

const hex = (bytes) => Array.from(bytes, (byte) => byte.toString(16).padStart(2, "0")).join("");
const unhex = (text) => Uint8Array.from(text.match(/../g) ?? [], (pair) => parseInt(pair, 16));
const random = (length) => crypto.getRandomValues(new Uint8Array(length));
const sha256 = async (...parts) => new Uint8Array(await subtle.digest("SHA-256", concat(...parts)));

/** Encode as base64url without padding (§2, signatures; §7.1, bodies and salts). */
const toBase64url = (bytes) =>
  btoa(String.fromCharCode(...bytes)).replaceAll("+", "-").replaceAll("/", "_").replaceAll("=", "");

/** Decode base64url; padding or a foreign character is an error, for the page says "no padding". */
const fromBase64url = (text) => {
  if (!/^[A-Za-z0-9_-]*$/.test(text)) throw new Error(`not base64url without padding: ${text}`);
  return Uint8Array.from(atob(text.replaceAll("-", "+").replaceAll("_", "/")), (char) => char.charCodeAt(0));
};

// ---------------------------------------------------------------------------------------------- names

const BASE58 = "123456789ABCDEFGHJKLMNPQRSTUVWXYZabcdefghijkmnopqrstuvwxyz";

/** Encode as base58btc: the bytes as one big number, each leading zero byte as one "1". */
function toBase58(bytes) {
  let number = bytes.length === 0 ? 0n : BigInt(`0x${hex(bytes)}`);
  let digits = "";
  for (; number > 0n; number /= 58n) digits = BASE58[Number(number % 58n)] + digits;
  const zeros = bytes.findIndex((byte) => byte !== 0);
  return "1".repeat(zeros === -1 ? bytes.length : zeros) + digits;
}

/** Decode base58btc; throws on a character outside the alphabet. */
function fromBase58(text) {
  let number = 0n;
  for (const char of text) {
    const digit = BASE58.indexOf(char);
    if (digit === -1) throw new Error(`not base58: ${char}`);
    number = number * 58n + BigInt(digit);
  }
  const ones = text.length - text.replace(/^1+/, "").length;
  const digits = number === 0n ? "" : number.toString(16);
  return concat(new Uint8Array(ones), unhex(digits.length % 2 === 0 ? digits : `0${digits}`));
}

/** Name a 32-byte Ed25519 public key as did:key (§2: multicodec 0xed01, base58btc, multibase prefix z). */
const toDid = (key) => `did:key:z${toBase58(concat(Uint8Array.of(0xed, 0x01), key))}`;

/** Read the public key out of a did:key; throws unless it names an Ed25519 key. */
function fromDid(did) {
  if (!did.startsWith("did:key:z")) throw new Error(`not a did:key: ${did}`);
  const bytes = fromBase58(did.slice("did:key:z".length));
  if (bytes.length !== 34 || bytes[0] !== 0xed || bytes[1] !== 0x01) throw new Error(`not Ed25519: ${did}`);
  return bytes.slice(2);
}

/** Make a UUIDv7 (RFC 9562 §5.7) of `ms` since the epoch; ten random bytes fill the rest. */
function uuid7(ms, noise = random(10)) {
  const id = concat(unhex(ms.toString(16).padStart(12, "0")), noise);
  id[6] = (id[6] & 0x0f) | 0x70;
  id[8] = (id[8] & 0x3f) | 0x80;
  return id;
}

const uuidText = (id) => hex(id).replace(/^(.{8})(.{4})(.{4})(.{4})(.{12})$/, "$1-$2-$3-$4-$5");

// ---------------------------------------------------------------------------------------------- canonical bytes

/** Bytes that go out as they are: for making the bodies that a ledger has to refuse. */
class Raw {
  constructor(bytes) {
    this.bytes = bytes;
  }
}

const MAX_DEPTH = 16;

const bigEndian = (value, size) => unhex(BigInt.asUintN(size * 8, value).toString(16).padStart(size * 2, "0"));
const tagged = (tag, value, size) => concat(Uint8Array.of(tag), bigEndian(value, size));

function encodeInt(value) {
  if (value < -(2n ** 63n) || value >= 2n ** 63n) throw new RangeError(`int out of range: ${value}`);
  if (value >= 0n) {
    if (value < 0x80n) return Uint8Array.of(Number(value));
    if (value < 0x100n) return tagged(0xcc, value, 1);
    if (value < 0x10000n) return tagged(0xcd, value, 2);
    if (value < 0x100000000n) return tagged(0xce, value, 4);
    return tagged(0xcf, value, 8);
  }
  if (value >= -0x20n) return Uint8Array.of(Number(value) & 0xff);
  if (value >= -0x80n) return tagged(0xd0, value, 1);
  if (value >= -0x8000n) return tagged(0xd1, value, 2);
  if (value >= -0x80000000n) return tagged(0xd2, value, 4);
  return tagged(0xd3, value, 8);
}

/** Write the shortest header for a length: `fix` is [tag, limit] or absent, `tags` are for 8, 16 and 32 bits. */
function encodeHeader(length, { fix, tags: [tag8, tag16, tag32] }) {
  if (fix && length < fix[1]) return Uint8Array.of(fix[0] | length);
  if (tag8 !== undefined && length < 0x100) return tagged(tag8, BigInt(length), 1);
  if (length < 0x10000) return tagged(tag16, BigInt(length), 2);
  return tagged(tag32, BigInt(length), 4);
}

const STR = { fix: [0xa0, 32], tags: [0xd9, 0xda, 0xdb] };
const BIN = { tags: [0xc4, 0xc5, 0xc6] };
const ARRAY = { fix: [0x90, 16], tags: [undefined, 0xdc, 0xdd] };
const MAP = { fix: [0x80, 16], tags: [undefined, 0xde, 0xdf] };

function encodeStr(text) {
  if (!text.isWellFormed()) throw new TypeError("str is not valid Unicode");
  const bytes = utf8.encode(text);
  return concat(encodeHeader(bytes.length, STR), bytes);
}

function encodeMap(map, depth) {
  const entries = Object.entries(map).map(([key, value]) => [utf8.encode(key), key, value]);
  entries.sort(([a], [b]) => compareBytes(a, b));
  const parts = entries.flatMap(([, key, value]) => [encodeStr(key), encode(value, depth)]);
  return concat(encodeHeader(entries.length, MAP), ...parts);
}

/**
 * Encode a value in the one form of §1. Ints are Numbers without a fraction or BigInts, bin is Uint8Array, a map
 * is a plain object. Throws on a fraction, an int outside 64 bits, undefined, or more than 16 levels.
 */
function encode(value, depth = 0) {
  if (value instanceof Raw) return value.bytes;
  if (value === null) return Uint8Array.of(0xc0);
  if (typeof value === "boolean") return Uint8Array.of(value ? 0xc3 : 0xc2);
  if (typeof value === "bigint") return encodeInt(value);
  if (typeof value === "number" && Number.isSafeInteger(value)) return encodeInt(BigInt(value));
  if (typeof value === "string") return encodeStr(value);
  if (value instanceof Uint8Array) return concat(encodeHeader(value.length, BIN), value);
  if (typeof value !== "object" || depth >= MAX_DEPTH) throw new TypeError(`no canonical form: ${String(value)}`);
  if (!Array.isArray(value)) return encodeMap(value, depth + 1);
  return concat(encodeHeader(value.length, ARRAY), ...value.map((item) => encode(item, depth + 1)));
}

/** Reads one MessagePack value. Every int comes out as BigInt, so that no amount is rounded on the way. */
class Decoder {
  constructor(bytes) {
    this.bytes = bytes;
    this.offset = 0;
  }

  take(size) {
    if (this.offset + size > this.bytes.length) throw new RangeError("MessagePack ends too early");
    this.offset += size;
    return this.bytes.subarray(this.offset - size, this.offset);
  }

  uint(size) {
    return BigInt(`0x${hex(this.take(size))}`);
  }

  text(size) {
    return new TextDecoder("utf-8", { fatal: true, ignoreBOM: true }).decode(this.take(size));
  }

  array(size, depth) {
    return Array.from({ length: size }, () => this.value(depth));
  }

  map(size, depth) {
    const map = Object.create(null);
    for (let i = 0; i < size; i += 1) {
      const key = this.value(depth);
      if (typeof key !== "string" || key in map) throw new TypeError("map key is no str, or is there twice");
      map[key] = this.value(depth);
    }
    return map;
  }

  value(depth = 0) {
    if (depth > MAX_DEPTH) throw new RangeError("MessagePack is nested too deep");
    const tag = this.take(1)[0];
    if (tag < 0x80) return BigInt(tag);
    if (tag < 0x90) return this.map(tag & 0x0f, depth + 1);
    if (tag < 0xa0) return this.array(tag & 0x0f, depth + 1);
    if (tag < 0xc0) return this.text(tag & 0x1f);
    if (tag >= 0xe0) return BigInt(tag - 0x100);
    return this.tagged(tag, depth + 1);
  }

  tagged(tag, depth) {
    if (tag === 0xc0) return null;
    if (tag === 0xc2 || tag === 0xc3) return tag === 0xc3;
    if (tag >= 0xc4 && tag <= 0xc6) return this.take(Number(this.uint(2 ** (tag - 0xc4)))).slice();
    if (tag >= 0xcc && tag <= 0xcf) return this.uint(2 ** (tag - 0xcc));
    if (tag >= 0xd0 && tag <= 0xd3) return BigInt.asIntN(8 * 2 ** (tag - 0xd0), this.uint(2 ** (tag - 0xd0)));
    if (tag >= 0xd9 && tag <= 0xdb) return this.text(Number(this.uint(2 ** (tag - 0xd9))));
    if (tag === 0xdc || tag === 0xdd) return this.array(Number(this.uint(2 * (tag - 0xdb))), depth);
    if (tag === 0xde || tag === 0xdf) return this.map(Number(this.uint(2 * (tag - 0xdd))), depth);
    throw new TypeError(`no float, no ext (tag 0x${tag.toString(16)})`);
  }
}

/** Decode one MessagePack value and nothing after it. Throws on floats, ext, doubled keys and trailing bytes. */
function decode(bytes) {
  const decoder = new Decoder(bytes);
  const value = decoder.value();
  if (decoder.offset !== bytes.length) throw new RangeError("bytes after the MessagePack value");
  return value;
}

/** Decode and refuse every form but the canonical one: what decodes must encode to the same bytes again. */
function decodeCanonical(bytes) {
  const value = decode(bytes);
  if (compareBytes(encode(value), bytes) !== 0) throw new TypeError("not-canonical");
  return value;
}

// ---------------------------------------------------------------------------------------------- statements, log

const STATEMENT_PREFIX = utf8.encode("gesell/statement/1\n");
const COMMONS_PREFIX = utf8.encode("gesell/commons/1\n");
const MEMO_PREFIX = utf8.encode("gesell/memo/1\n");
const DAY_MS = 86_400_000;

const commonsId = async (foundBody) => (await sha256(COMMONS_PREFIX, foundBody)).slice(0, 16);
const sealMemo = async ({ salt, text }) => sha256(MEMO_PREFIX, salt, utf8.encode(text));

/** Hash leaf data as RFC 6962 §2.1 says: SHA-256 over 0x00 and the data. */
const leafHash = async (data) => sha256(Uint8Array.of(0), data);

/** Lay out the leaf data of an entry (§6) and hash it; `postings` have byte or str holders and BigInt amounts. */
const entryLeaf = async ({ seq, at, body, signatures, postings }) =>
  leafHash(encode([seq, at, [body, signatures], postings]));

/** A peer: an Ed25519 key pair in WebCrypto, its raw public key and its did. */
async function newPeer() {
  const pair = await subtle.generateKey({ name: "Ed25519" }, true, ["sign", "verify"]);
  const key = new Uint8Array(await subtle.exportKey("raw", pair.publicKey));
  return { key, did: toDid(key), secret: pair.privateKey };
}

/** Sign a body (bytes) by each signer; returns [[key, signature], …] with ascending keys (§3). */
async function signBody(body, signers) {
  const message = concat(STATEMENT_PREFIX, body);
  const one = async ({ key, secret }) => [key, new Uint8Array(await subtle.sign("Ed25519", secret, message))];
  const signatures = await Promise.all(signers.map(one));
  return signatures.sort(([a], [b]) => compareBytes(a, b));
}

async function verifySignature(body, [key, signature]) {
  const publicKey = await subtle.importKey("raw", key, { name: "Ed25519" }, false, ["verify"]);
  return subtle.verify("Ed25519", publicKey, signature, concat(STATEMENT_PREFIX, body));
}

// ---------------------------------------------------------------------------------------------- the books

const tickOf = (atMs, policy) => Math.floor(atMs / (1000 * policy.tick_seconds));

/** Charge the brackets on what stayed still (§4.2): marginal, every floor as written there. */
function feeOn(still, brackets) {
  let fee = 0n;
  brackets.forEach(([from, ppb], i) => {
    const end = brackets[i + 1]?.[0];
    const top = end !== undefined && end < still ? end : still;
    if (top > from) fee += ((top - from) * ppb) / 10n ** 9n;
  });
  return fee;
}

/**
 * Melt an account to the state before `tick`, tick end by tick end as §4.2 states the law, and return the sum of
 * the fees. The account is {balance, inflow: Map(tick → grains), tick: the first tick end not yet charged}.
 * Valid for one policy without change and an account without escrow, which is all that this story needs.
 */
function melt(account, tick, policy) {
  let sum = 0n;
  for (; account.tick < tick; account.tick += 1) {
    let fresh = 0n;
    const start = account.tick - policy.rest_ticks + 1;
    for (let k = start; k <= account.tick; k += 1) fresh += account.inflow.get(k) ?? 0n;
    const still = account.balance - fresh;
    const fee = still > 0n ? feeOn(still, policy.brackets) : 0n;
    account.balance -= fee;
    sum += fee;
  }
  return sum;
}

const INFLOW_REASONS = new Set(["issue", "pay", "grant", "capture", "settle", "share"]);

/** The books of one commons, kept from nothing but its statements and the times at which they were accepted. */
class Books {
  constructor(policy, code) {
    this.policy = policy;
    this.code = code;
    this.accounts = new Map();
    this.reserved = { issuer: 0n, pool: 0n };
  }

  account(did, tick) {
    if (!this.accounts.has(did)) this.accounts.set(did, { balance: 0n, inflow: new Map(), tick });
    return this.accounts.get(did);
  }

  /** Say which postings the statement `body` makes when accepted at `at`, in order, and keep them. */
  apply(body, at) {
    const tick = tickOf(at, this.policy);
    const touched = this.touchedBy(body).map((key) => toDid(key));
    const melts = touched.flatMap((did) => this.meltPostings(did, tick));
    const own = this.ownPostings(body).filter(([, , , amount]) => amount !== 0n);
    for (const [reason, holder, , amount] of own) this.post(reason, holder, amount, tick);
    return [...melts, ...own];
  }

  touchedBy(body) {
    if (body.type === "issue") return [body.to];
    if (body.type === "pay") return [body.by, ...body.legs.map(([to]) => to)];
    if (body.type === "retire") return [body.by];
    if (body.type === "sweep") return body.accounts;
    if (body.type === "found" || body.type === "join") return [];
    throw new Error(`a statement that this story does not expect: ${body.type}`);
  }

  meltPostings(did, tick) {
    const sum = melt(this.account(did, tick), tick, this.policy);
    this.reserved[this.policy.melt_to] += sum;
    if (sum === 0n) return [];
    return [["melt", did, this.code, -sum], ["melt", this.policy.melt_to, this.code, sum]];
  }

  ownPostings({ type, by, to, amount, legs, balancing }) {
    const nameOf = (holder) => (typeof holder === "string" ? holder : toDid(holder));
    const posting = (holder, sum) => [type, nameOf(holder), this.code, sum];
    const moved = (wanted) => {
      const balance = by && this.accounts.get(toDid(by))?.balance;
      return balancing && balance < wanted ? balance : wanted;
    };
    if (type === "issue") return [posting("issuer", -amount), posting(to, amount)];
    if (type === "retire") return [posting(by, -moved(amount)), posting("issuer", moved(amount))];
    if (type !== "pay") return [];
    const parts = legs.map(([payee, grains]) => [payee, moved(grains)]);
    const sum = parts.reduce((total, [, grains]) => total + grains, 0n);
    return [posting(by, -sum), ...parts.map(([payee, grains]) => posting(payee, grains))];
  }

  post(reason, holder, amount, tick) {
    if (holder in this.reserved) {
      this.reserved[holder] += amount;
      return;
    }
    const account = this.account(holder, tick);
    account.balance += amount;
    const counts = amount > 0n && INFLOW_REASONS.has(reason);
    if (counts) account.inflow.set(tick, (account.inflow.get(tick) ?? 0n) + amount);
  }

  /** Read the balance of `did` at the beginning of `tick`, and the fee its end will take, changing nothing. */
  balanceAt(did, tick) {
    const account = { ...this.account(did, tick) };
    melt(account, tick, this.policy);
    const balance = account.balance;
    return { balance, nextMelt: melt(account, tick + 1, this.policy) };
  }
}

// ---------------------------------------------------------------------------------------------- checks

/** Write any value as text in which equal values, and only those, look alike. */
function show(value) {
  if (typeof value === "bigint") return `${value}n`;
  if (value instanceof Uint8Array) return `bin:${hex(value)}`;
  if (Array.isArray(value)) return `[${value.map(show).join(", ")}]`;
  if (value === null || typeof value !== "object") return JSON.stringify(value) ?? String(value);
  return `{${Object.keys(value).sort().map((key) => `${key}: ${show(value[key])}`).join(", ")}}`;
}

/** Counts comparisons and remembers those that failed; a failed one doesn't stop the rest. */
class Checks {
  constructor() {
    this.count = 0;
    this.failures = [];
  }

  equal(what, got, want) {
    this.count += 1;
    if (show(got) !== show(want)) this.failures.push(`${what}\n    got  ${show(got)}\n    want ${show(want)}`);
  }

  within(what, got, wanted) {
    this.count += 1;
    const found = wanted.some((want) => show(want) === show(got));
    if (!found) this.failures.push(`${what}\n    got  ${show(got)}\n    want one of ${show(wanted)}`);
  }

  throws(what, action) {
    this.count += 1;
    try {
      this.failures.push(`${what}\n    got  ${show(action())}\n    want an error`);
    } catch {
      // The error is what was asked for.
    }
  }
}

// ---------------------------------------------------------------------------------------------- HTTP

const JSON_TYPE = "application/json";
const MSGPACK_TYPE = "application/msgpack";
const PROBLEM_TYPE = "application/problem+json";

/** Write an envelope in the JSON form of §7.1. */
function jsonEnvelope({ body, signatures, memo }) {
  const signed = signatures.map(([key, signature]) => ({ key: toDid(key), signature: toBase64url(signature) }));
  const statement = { body: toBase64url(body), signatures: signed };
  if (memo) statement.memo = { salt: toBase64url(memo.salt), text: memo.text };
  return statement;
}

const packedEnvelope = ({ body, signatures, memo }) =>
  memo ? [body, signatures, [memo.salt, memo.text]] : [body, signatures];

/** Bring a receipt of a MessagePack answer into the form that the same receipt has in JSON (§7.1). */
function receiptInJson(receipt) {
  const posting = ([reason, holder, asset, amount]) =>
    [reason, typeof holder === "string" ? holder : toDid(holder), asset, String(amount)];
  return {
    ...receipt,
    commons: hex(receipt.commons),
    seq: Number(receipt.seq),
    at: Number(receipt.at),
    tick: Number(receipt.tick),
    id: uuidText(receipt.id),
    leaf: hex(receipt.leaf),
    postings: receipt.postings.map(posting),
  };
}

class Ledger {
  constructor(base) {
    this.base = base.replace(/\/+$/, "");
  }

  async request(url, options = {}) {
    const response = await fetch(url, { ...options, signal: AbortSignal.timeout(30_000) });
    const type = (response.headers.get("content-type") ?? "").split(";")[0].trim();
    const bytes = new Uint8Array(await response.arrayBuffer());
    const isJson = type === JSON_TYPE || type === PROBLEM_TYPE;
    const text = () => new TextDecoder().decode(bytes);
    if (!isJson && type !== MSGPACK_TYPE) {
      throw new Error(`${url}: ${response.status} in ${type || "no media type"}: ${text().slice(0, 300)}`);
    }
    const body = isJson ? JSON.parse(text()) : decode(bytes);
    return { status: response.status, type, body, next: nextLink(response) };
  }

  read(path) {
    return this.request(`${this.base}/v1${path}`, { headers: { accept: JSON_TYPE } });
  }

  /** Read a thing that must be there. */
  async get(path) {
    const { status, body } = await this.read(path);
    if (status !== 200) throw new Error(`GET ${path}: ${status} ${show(body)}`);
    return body;
  }

  /** Follow a list from page to page by its Link header; returns the pages, each a list of items. */
  async pages(path) {
    const pages = [];
    for (let url = `${this.base}/v1${path}`; url !== undefined; ) {
      const { status, body, next } = await this.request(url, { headers: { accept: JSON_TYPE } });
      if (status !== 200) throw new Error(`GET ${url}: ${status} ${show(body)}`);
      if (pages.length > 10_000) throw new Error(`GET ${path}: the pages do not end`);
      pages.push(body.items);
      url = next;
    }
    return pages;
  }

  /** Post envelopes in `format` and ask for the answer in `accept`. */
  post(envelopes, { format = MSGPACK_TYPE, accept = format } = {}) {
    const body =
      format === JSON_TYPE
        ? JSON.stringify({ statements: envelopes.map(jsonEnvelope) })
        : encode({ statements: envelopes.map(packedEnvelope) });
    const headers = { "content-type": format, accept };
    return this.request(`${this.base}/v1/statements`, { method: "POST", headers, body });
  }
}

/** Find the target of rel="next" in a Link header (RFC 8288), absolute or relative; undefined if there is none. */
function nextLink(response) {
  const link = response.headers.get("link") ?? "";
  for (const [, target, parameters] of link.matchAll(/<([^>]*)>([^<]*)/g)) {
    if (/;\s*rel="?next"?/i.test(parameters)) return new URL(target, response.url).href;
  }
  return undefined;
}

/** Read an amount in either of its JSON forms (§2): digits, or the object that names its asset. */
function grains(amount, { code, scale }) {
  if (typeof amount === "string") return /^-?\d+$/.test(amount) ? BigInt(amount) : `no digits: ${amount}`;
  const named = amount?.asset_code === code && amount?.asset_scale === scale && /^-?\d+$/.test(amount?.value);
  return named ? BigInt(amount.value) : `no amount of ${code}: ${show(amount)}`;
}

// ---------------------------------------------------------------------------------------------- the story

const CURRENCY = { code: "WRG", scale: 6 };
const MOST_GRAINS = 10n ** 15n;

/** Everything that the story's chapters share. */
class Story {
  constructor(base) {
    this.ledger = new Ledger(base);
    this.checks = new Checks();
    this.accepted = [];
  }

  now = async () => (await this.ledger.get("")).time;

  /**
   * Make and sign a statement by `by`. Its time is the ledger's, read just before, so that a demo clock of any
   * speed neither finds it ahead nor lets it expire on the way: five minutes of real time, at most seven days.
   */
  async sign(by, type, fields, { id, memo, signers = [by] } = {}) {
    const { time, clock_speed: speed } = await this.ledger.get("");
    const chosen = id ?? uuid7(time);
    const born = parseInt(hex(chosen.slice(0, 6)), 16);
    const life = Math.min(7 * DAY_MS, Math.ceil(300_000 * Math.max(1, speed)));
    const map = { type, by: by.key, id: chosen, expires: Math.min(time + life, born + 7 * DAY_MS), ...fields };
    if (this.commons) map.commons = this.commons;
    if (memo) map.memo = await sealMemo(memo);
    const body = encode(map);
    return { id: chosen, expires: map.expires, body, signatures: await signBody(body, signers), memo };
  }

  /** Send envelopes that must all be accepted, and check each receipt against what was signed. */
  async send(envelopes, options = {}) {
    const { status, type, body } = await this.ledger.post(envelopes, options);
    this.checks.equal("statements answer 200", status, 200);
    if (status !== 200) throw new Error(`statements are refused: ${status} ${show(body)}`);
    const wanted = options.accept ?? options.format ?? MSGPACK_TYPE;
    this.checks.equal("the answer is in the format asked for", type, wanted);
    const results = body.results ?? [];
    this.checks.equal("one result for each statement", results.length, envelopes.length);
    const receipts = [];
    for (const [i, envelope] of envelopes.entries()) {
      receipts.push(await this.checkAccepted(envelope, results[i], type));
    }
    return receipts;
  }

  async checkAccepted(envelope, result, type) {
    this.checks.equal("the statement is accepted", result?.status, "accepted");
    if (!result?.receipt) throw new Error(`no receipt: ${show(result)}`);
    const receipt = type === MSGPACK_TYPE ? receiptInJson(result.receipt) : result.receipt;
    this.checks.equal("the receipt names the statement", receipt.id, uuidText(envelope.id));
    this.checks.equal("the receipt names the commons", receipt.commons, hex(this.commons));
    this.checks.equal("the receipt's tick follows from its time", receipt.tick, tickOf(receipt.at, this.policy));
    this.checks.equal("it was accepted before it expired", receipt.at <= envelope.expires, true);
    const before = this.accepted.at(-1)?.receipt ?? { seq: 0, at: 0 };
    this.checks.equal("seq and at go forward", receipt.seq > before.seq && receipt.at >= before.at, true);
    const leaf = await entryLeaf({ ...envelope, ...receipt, postings: receipt.postings.map(postingInBytes) });
    this.checks.equal("the receipt's leaf is the hash of what was signed", receipt.leaf, hex(leaf));
    this.accepted.push({ envelope, receipt });
    return receipt;
  }

  /** Send one envelope that must be refused with `code`, and check the problem (RFC 9457, §7). */
  async refused(what, envelope, { status, code, format = MSGPACK_TYPE }) {
    const answer = await this.ledger.post([envelope], { format, accept: JSON_TYPE });
    this.checkProblem(what, answer, { status, code });
    return answer.body;
  }

  checkProblem(what, answer, { status, code }) {
    const { body } = answer;
    this.checks.equal(`${what}: HTTP status`, answer.status, status);
    this.checks.equal(`${what}: media type`, answer.type, PROBLEM_TYPE);
    this.checks.equal(`${what}: type and code`, [body.type, body.code], [`urn:gesell:problem:${code}`, code]);
    this.checks.equal(`${what}: the status it repeats`, body.status ?? status, status);
  }
}

/** Bring a posting from JSON into the form that it has in the log. */
const postingInBytes = ([reason, holder, asset, amount]) =>
  [reason, holder.startsWith("did:key:") ? fromDid(holder) : holder, asset, BigInt(amount)];

/** GET /v1: who the ledger is, what its clock says. */
async function meet(story) {
  const { checks } = story;
  const about = await story.ledger.get("");
  story.ledgerKey = fromDid(about.ledger);
  checks.equal("the ledger's did is a did:key", toDid(story.ledgerKey), about.ledger);
  checks.equal("time is an int of milliseconds", Number.isSafeInteger(about.time) && about.time > 1e12, true);
  const speed = about.clock_speed;
  checks.equal("clock_speed is a positive number", typeof speed === "number" && speed > 0, true);
  const least = about.limits?.min_tick_seconds;
  checks.equal("limits.min_tick_seconds is an int from 1", Number.isInteger(least) && least >= 1, true);
  checks.equal("the clock does not go back", (await story.now()) >= about.time, true);
  story.policy = {
    tick_seconds: Math.max(86_400, least),
    rest_ticks: 0,
    brackets: [[0n, 673_197n]],
    melt_to: "pool",
    admission: "open",
    credit_limit: 0n,
    vouch_min: 1n,
    visibility: "open",
    notice_ticks: 0,
  };
}

/** Found a commons and join it: one join alone with a sealed memo in MessagePack, two together in JSON. */
async function foundAndJoin(story) {
  const { checks } = story;
  [story.steward, story.ann, story.bob] = await Promise.all([newPeer(), newPeer(), newPeer()]);
  const fields = {
    ledger: story.ledgerKey,
    name: "Wörgl, as a stranger sees it",
    currency: CURRENCY,
    policy: story.policy,
    stewards: [story.steward.key],
    threshold: 1,
  };
  const elsewhere = await story.sign(story.steward, "found", { ...fields, ledger: story.nobody.key });
  await story.refused("a commons meant for another ledger", elsewhere, { status: 422, code: "wrong-ledger" });
  const found = await story.sign(story.steward, "found", fields);
  story.commons = await commonsId(found.body);
  const [first] = await story.send([found]);
  checks.equal("found is entry 1", first.seq, 1);

  const memo = { salt: random(16), text: "Ann bakes bread.\nAsk me — größte Brötchen, 面包" };
  const annJoins = await story.sign(story.ann, "join", { handle: "ann" }, { memo });
  const lie = { ...annJoins, memo: { ...memo, text: "Ann bakes nothing." } };
  await story.refused("a memo that does not fit its seal", lie, { status: 400, code: "malformed" });
  const [joined] = await story.send([annJoins], { format: MSGPACK_TYPE, accept: JSON_TYPE });
  checks.equal("a join posts nothing", joined.postings, []);
  const both = [
    await story.sign(story.bob, "join", { handle: "bob" }),
    await story.sign(story.steward, "join", { handle: "steward" }),
  ];
  await story.send(both, { format: JSON_TYPE });
}

/** Issue and pay in both formats, with two legs, with balancing, and retire. */
async function moveMoney(story) {
  const { steward, ann, bob } = story;
  const issue = await story.sign(steward, "issue", { to: ann.key, amount: 5_000_000_000_123n });
  await story.send([issue], { format: MSGPACK_TYPE });
  story.twoLegs = await story.sign(
    ann,
    "pay",
    { legs: [[bob.key, 70_000_000n], [steward.key, 1_234_567n]], ref: issue.id, category: "answer" },
    { memo: { salt: random(16), text: "for two answers" } },
  );
  await story.send([story.twoLegs], { format: JSON_TYPE });
  const all = await story.sign(bob, "pay", { legs: [[ann.key, MOST_GRAINS]], balancing: true });
  const [emptied] = await story.send([all], { format: MSGPACK_TYPE });
  const moved = -BigInt(emptied.postings.find(([reason, holder]) => reason === "pay" && holder === bob.did)[3]);
  story.checks.equal("balancing sends all there is", moved > 60_000_000n && moved <= 70_000_000n, true);
  const retire = await story.sign(ann, "retire", { amount: 23n });
  await story.send([retire], { format: JSON_TYPE, accept: MSGPACK_TYPE });
}

/** The same envelope again, in either format, gets the first receipt; another body with its id does not. */
async function resend(story) {
  const { checks, ann, bob } = story;
  for (const { envelope, receipt } of story.accepted) {
    for (const format of [JSON_TYPE, MSGPACK_TYPE]) {
      const { status, body } = await story.ledger.post([envelope], { format });
      const [result] = body.results ?? [];
      const again = format === MSGPACK_TYPE && result?.receipt ? receiptInJson(result.receipt) : result?.receipt;
      checks.equal("a resent envelope is replayed", [status, result?.status], [200, "replayed"]);
      checks.equal("a replay answers with the first receipt", again, receipt);
    }
    const kept = await story.ledger.get(`/commons/${hex(story.commons)}/statements/${receipt.id}`);
    checks.equal("the receipt can be read under its id", kept, receipt);
  }
  const { id } = story.twoLegs;
  const other = await story.sign(ann, "pay", { legs: [[bob.key, 1n]] }, { id });
  await story.refused("another body with a used id", other, { status: 409, code: "id-conflict" });
}

/** Overdraw, break a signature, speak for somebody else, send bytes that are not canonical. */
async function misbehave(story) {
  const { checks, steward, ann, bob } = story;
  const books = await replayed(story);
  const before = await story.now();
  const needed = 2_000_000n;
  const overdraft = await story.sign(steward, "pay", { legs: [[ann.key, needed]] });
  for (const format of [MSGPACK_TYPE, JSON_TYPE]) {
    const expected = { status: 422, code: "insufficient-funds", format };
    const problem = await story.refused("an overdraft", overdraft, expected);
    const possible = balancesBetween(story, books, steward.did, before, await story.now());
    checks.within("an overdraft says what is available", grains(problem.available, CURRENCY), possible);
    checks.equal("an overdraft says what is needed", grains(problem.needed, CURRENCY), needed);
  }
  const sound = await story.sign(ann, "pay", { legs: [[bob.key, 5n]] });
  const [[key, signature]] = sound.signatures;
  const broken = { ...sound, signatures: [[key, signature.map((byte, i) => (i === 5 ? byte ^ 1 : byte))]] };
  for (const format of [MSGPACK_TYPE, JSON_TYPE]) {
    await story.refused("a broken signature", broken, { status: 401, code: "bad-signature", format });
  }
  const stolen = await story.sign(ann, "pay", { legs: [[bob.key, 5n]] }, { signers: [bob] });
  await story.refused("a statement signed by somebody else", stolen, { status: 403, code: "not-authorised" });
  const odd = { "a float amount": "cb3ff8000000000000", "an int that is not in its shortest form": "cd0005" };
  for (const [what, bytes] of Object.entries(odd)) {
    const twisted = await story.sign(ann, "pay", { legs: [[bob.key, new Raw(unhex(bytes))]] });
    await story.refused(what, twisted, { status: 400, code: "not-canonical" });
    await story.refused(what, twisted, { status: 400, code: "not-canonical", format: JSON_TYPE });
  }
  await besides(story, { sound, broken, refusedId: overdraft.id });
}

/** A refused statement stops no other in its request and does not use up its id. */
async function besides(story, { sound, broken, refusedId }) {
  const { checks, steward, ann } = story;
  const reuse = await story.sign(steward, "pay", { legs: [[ann.key, 1n]] }, { id: refusedId });
  const { status, body } = await story.ledger.post([broken, sound, reuse], { format: JSON_TYPE });
  const [bad, ...good] = body.results ?? [];
  checks.equal("a request with refused statements among others answers 200", status, 200);
  const told = [bad?.status, bad?.problem?.code];
  checks.equal("the refused one is told beside the others", told, ["refused", "bad-signature"]);
  for (const [i, envelope] of [sound, reuse].entries()) await story.checkAccepted(envelope, good[i], JSON_TYPE);
}

/** Read all entries, oldest first, a few a page. */
async function readEntries(story, limit = 200) {
  return (await story.ledger.pages(`/commons/${hex(story.commons)}/entries?limit=${limit}`)).flat();
}

/** Replay the entries, up to `seq` and `at` if given, into empty books. */
async function replayed(story, { seq = Infinity, at = Infinity, entries } = {}) {
  const books = new Books(story.policy, CURRENCY.code);
  for (const entry of entries ?? (await readEntries(story))) {
    if (entry.seq <= seq && entry.at <= at) books.apply(decode(fromBase64url(entry.body)), entry.at);
  }
  return books;
}

/** The balances that `did` may show while the clock goes from one time to another. */
function balancesBetween(story, books, did, fromMs, toMs) {
  const possible = [];
  for (let tick = tickOf(fromMs, story.policy); tick <= tickOf(toMs, story.policy); tick += 1) {
    possible.push(books.balanceAt(did, tick).balance);
  }
  return possible;
}

/** Page through the log, and recompute every leaf, signature and posting in it. */
async function auditLog(story) {
  const { checks } = story;
  const path = `/commons/${hex(story.commons)}/entries`;
  const pages = await story.ledger.pages(`${path}?limit=3`);
  const entries = pages.flat();
  checks.equal("pages hold at most `limit` items", pages.every((page) => page.length <= 3), true);
  checks.equal("Link leads on while a page is full", pages[0].length === 3 && pages.length > 1, true);
  checks.equal("entries are numbered without a gap", entries.map(({ seq }) => seq), entries.map((_, i) => i + 1));
  const afterTwo = await story.ledger.get(`${path}?after=2&limit=2`);
  checks.equal("`after` continues behind a seq", afterTwo.items, entries.slice(2, 4));
  const times = entries.map(({ at }) => at);
  checks.equal("at never goes back", times, times.toSorted((a, b) => a - b));

  const books = new Books(story.policy, CURRENCY.code);
  for (const entry of entries) await auditEntry(story, entry, books);
  // The ledger may sweep between our statements; what is not its own must be ours, each once, in our order.
  const brief = ({ seq, id, leaf }) => ({ seq, id, leaf });
  const ours = entries.filter(({ by }) => by !== toDid(story.ledgerKey)).map(brief);
  const sent = story.accepted.map(({ receipt }) => brief(receipt));
  checks.equal("the log holds what was accepted and nothing else", ours, sent);
  return entries;
}

async function auditEntry(story, entry, books) {
  const { checks } = story;
  const alone = await story.ledger.get(`/commons/${hex(story.commons)}/entries/${entry.seq}`);
  checks.equal(`entry ${entry.seq} reads alike alone and in the list`, alone, entry);
  const bytes = fromBase64url(alone.body);
  const signatures = alone.signatures.map(({ key, signature }) => [fromDid(key), fromBase64url(signature)]);
  const postings = alone.postings.map(postingInBytes);
  const leaf = await entryLeaf({ seq: alone.seq, at: alone.at, body: bytes, signatures, postings });
  checks.equal(`entry ${entry.seq}: leaf`, alone.leaf, hex(leaf));
  const verified = await Promise.all(signatures.map((signature) => verifySignature(bytes, signature)));
  checks.equal(`entry ${entry.seq}: signatures`, verified, signatures.map(() => true));
  const body = decodeCanonical(bytes);
  const told = [alone.type, alone.by, alone.id];
  const signed = [body.type, toDid(body.by), uuidText(body.id)];
  checks.equal(`entry ${entry.seq}: fields are those of its body`, told, signed);
  const due = books.apply(body, alone.at).map((posting) => posting.with(3, String(posting[3])));
  checks.equal(`entry ${entry.seq}: postings follow from the statements`, alone.postings, due);
  const mine = story.accepted.find(({ receipt }) => receipt.seq === alone.seq);
  if (!mine) return;
  checks.equal(`entry ${entry.seq}: body is the one sent`, bytes, mine.envelope.body);
  checks.equal(`entry ${entry.seq}: postings are the receipt's`, alone.postings, mine.receipt.postings);
}

/** Read a member's balance in the currency, at `at` or now. */
async function readBalance(story, peer, at) {
  const query = at === undefined ? "" : `?at=${at}`;
  const path = `/commons/${hex(story.commons)}/members/${encodeURIComponent(peer.did)}/balances${query}`;
  const { items } = await story.ledger.get(path);
  const row = items.find(({ asset_code: code }) => code === CURRENCY.code);
  if (!row) throw new Error(`no ${CURRENCY.code} in ${show(items)}`);
  return row;
}

/** Balances now, after each past entry, and in the future, each against our own melting. */
async function readBalances(story, entries) {
  const { checks, policy } = story;
  const books = await replayed(story, { entries });
  for (const peer of [story.ann, story.bob, story.steward]) {
    const before = await story.now();
    const row = await readBalance(story, peer);
    const possible = balancesBetween(story, books, peer.did, before, await story.now());
    checks.within("the balance now", grains(row.balance, CURRENCY), possible);
    checks.equal("available is the balance, without credit", row.available, row.balance);
    checks.equal("nothing is in escrow", [row.asset_scale, row.escrow], [CURRENCY.scale, "0"]);
  }
  const last = entries.at(-1).at;
  // Before the first issue nobody had an account in the currency, and so there may be no row to read.
  const past = entries.slice(entries.findIndex(({ type }) => type === "issue")).map(({ at }) => at);
  const future = [1, 365, 5_000].map((ticks) => last + ticks * 1000 * policy.tick_seconds);
  for (const at of [...past, ...future]) {
    const then = await replayed(story, { entries, at });
    const { balance, nextMelt } = then.balanceAt(story.ann.did, tickOf(at, policy));
    const row = await readBalance(story, story.ann, at);
    checks.equal(`the balance at ${at}`, row.balance, String(balance));
    checks.equal(`the next melt at ${at}`, grains(row.next_melt, CURRENCY), nextMelt);
    // What was posted is only certain for the past: a sweep may post melt between two of our requests.
    const posted = postedSum(entries, story.ann.did, at);
    if (at < last) checks.equal(`the posted sum at ${at}`, row.posted, String(posted));
  }
  const late = await readBalance(story, story.ann, last + 365 * 1000 * policy.tick_seconds);
  const soon = await readBalance(story, story.ann, last);
  const shrunk = BigInt(late.balance) < (BigInt(soon.balance) * 8n) / 10n && BigInt(late.balance) > 0n;
  checks.equal("idle money melts by more than a fifth in 365 ticks", shrunk, true);
}

/** List the postings of an account as its history should show them, with the running balance. */
function expectedHistory(entries, did) {
  const rows = [];
  let balance = 0n;
  for (const { seq, at, type, postings } of entries) {
    for (const [reason, , , amount] of postings.filter(([, holder]) => holder === did)) {
      balance += BigInt(amount);
      rows.push({ seq, at, type, reason, amount: BigInt(amount), balance });
    }
  }
  return rows;
}

const postedSum = (entries, did, at) =>
  expectedHistory(entries.filter((entry) => entry.at <= at), did).at(-1)?.balance ?? 0n;

/** An account's history, page by page, against the entries. */
async function readHistory(story, entries) {
  const { checks, ann, bob, steward } = story;
  const base = `/commons/${hex(story.commons)}/members`;
  const known = entries.at(-1).seq;
  for (const peer of [ann, bob, steward]) {
    const pages = await story.ledger.pages(`${base}/${peer.did}/postings?asset=${CURRENCY.code}&limit=2`);
    const rows = pages.flat().filter(({ seq }) => seq <= known);
    // The page leaves open which end of a history comes first.
    if (rows.length > 1 && rows[0].seq > rows.at(-1).seq) rows.reverse();
    const told = rows.map(({ seq, at, type, reason, amount, balance }) => ({
      seq, at, type, reason, amount: grains(amount, CURRENCY), balance: grains(balance, CURRENCY),
    }));
    checks.equal(`the history of ${peer.did}`, told, expectedHistory(entries, peer.did));
    const paid = rows.find(({ seq, reason }) => reason === "pay" && seq === seqOf(story, story.twoLegs));
    checks.equal("the history shows the category", paid?.category, "answer");
    checks.equal("the history shows the memo", paid?.memo?.text ?? paid?.memo, story.twoLegs.memo.text);
    if (peer !== ann) checks.equal("the history shows who paid", paid?.counterpart, ann.did);
  }
}

const seqOf = (story, envelope) => story.accepted.find((one) => one.envelope === envelope).receipt.seq;

/** The commons and its members, as anyone may read them. */
async function readCommons(story) {
  const { checks, policy } = story;
  const path = `/commons/${hex(story.commons)}`;
  const about = await story.ledger.get(path);
  const now = await story.now();
  const entries = await readEntries(story);
  const books = await replayed(story, { entries, seq: about.seq });
  const at = entries.find(({ seq }) => seq === about.seq)?.at;
  checks.equal("the commons has its name", about.name, "Wörgl, as a stranger sees it");
  const { code, scale } = about.currency;
  checks.equal("the commons has its currency", { code, scale }, CURRENCY);
  const inForce = Object.fromEntries(Object.keys(policy).map((field) => [field, about.policy[field]]));
  const brackets = policy.brackets.map(([from, ppb]) => [String(from), Number(ppb)]);
  checks.equal("the policy in force", inForce, { ...policy, brackets, credit_limit: "0", vouch_min: "1" });
  checks.equal("the stewards", about.stewards, [story.steward.did]);
  checks.equal("three are members", about.members, 3);
  const hour = about.kinds.find((kind) => kind.code === "hour");
  checks.equal("the gift kind `hour` is there", [hour?.unit, hour?.scale], ["h", 2]);
  const inTime = about.tick >= tickOf(at, policy) && about.tick <= tickOf(now, policy);
  checks.equal(`tick ${about.tick} is between the last entry's and now`, inTime, true);
  const supply = grains(about.supply, CURRENCY);
  checks.equal("supply is what was issued less what was retired", supply, -books.reserved.issuer);
  checks.equal("the pool holds the melt posted", grains(about.pool, CURRENCY), books.reserved.pool);
  const listed = (await story.ledger.pages("/commons?limit=500")).flat();
  checks.equal("the open commons are listed", listed.some(({ commons }) => commons === hex(story.commons)), true);
}

async function readMembers(story) {
  const { checks } = story;
  const path = `/commons/${hex(story.commons)}/members`;
  const listed = (await story.ledger.pages(`${path}?limit=2`)).flat();
  checks.equal("three members are listed", listed.length, 3);
  for (const handle of ["ann", "bob", "steward"]) {
    const peer = story[handle];
    const byHandle = await story.ledger.get(`${path}/${handle}`);
    const byDid = await story.ledger.get(`${path}/${peer.did}`);
    const isJoin = ({ receipt, envelope }) => receipt.seq > 1 && envelope.signatures[0][0] === peer.key;
    const join = story.accepted.find(isJoin);
    const { status, joined, keys, credit_limit: limit } = byHandle;
    checks.equal(`${handle} by handle and by did`, byHandle, byDid);
    checks.equal(`${handle} in the list`, listed.find((row) => row.handle === handle), byHandle);
    const told = [byHandle.peer, byHandle.handle, status, limit];
    checks.equal(`${handle}: who it is`, told, [peer.did, handle, "active", "0"]);
    checks.equal(`${handle}: joined at the time of the join`, joined, join.receipt.at);
    checks.equal(`${handle}: keys`, keys.map((key) => key.key ?? key), [peer.did]);
  }
  const absent = { status: 404, code: "unknown-member" };
  checks.equal("the stranger's did is nobody's yet", listed.some(({ peer }) => peer === story.nobody.did), false);
  story.checkProblem("an unknown member", await story.ledger.read(`${path}/${story.nobody.did}`), absent);
  const nowhere = await story.ledger.read(`/commons/${"0".repeat(32)}`);
  story.checkProblem("an unknown commons", nowhere, { status: 404, code: "unknown-commons" });
  const entry = await story.ledger.read(`/commons/${hex(story.commons)}/entries/999999`);
  story.checkProblem("an unknown entry", entry, { status: 404, code: "not-found" });
}

/** Live the whole story on the ledger at `base`; every chapter adds its checks. */
async function live(story) {
  story.nobody = await newPeer();
  await meet(story);
  await foundAndJoin(story);
  await moveMoney(story);
  await resend(story);
  await misbehave(story);
  const entries = await auditLog(story);
  await readBalances(story, entries);
  await readHistory(story, entries);
  await readCommons(story);
  await readMembers(story);
}

// ---------------------------------------------------------------------------------------------- self-test

function testNames(checks) {
  // The vectors of draft-msporny-base58 §5, and the edges: nothing, zeros only.
  const fox = "The quick brown fox jumps over the lazy dog.";
  const base58 = [
    [utf8.encode("Hello World!"), "2NEpo7TZRRrLZSi2U"],
    [utf8.encode(fox), "USm3fpXnKG5EUBx2ndxBDMPVciP5hGey2Jh4NDv6gmeo1LkMeiKrLJUUBk6Z"],
    [unhex("0000287fb4cd"), "11233QC4"],
    [unhex(""), ""],
    [unhex("000000"), "111"],
  ];
  for (const [bytes, text] of base58) {
    checks.equal(`base58 of ${hex(bytes)}`, toBase58(bytes), text);
    checks.equal(`base58 back from ${text}`, fromBase58(text), bytes);
  }
  checks.throws("base58 has no 0", () => fromBase58("10"));
  const secp256k1 = `did:key:z${toBase58(unhex(`e701${"11".repeat(32)}`))}`;
  checks.throws("a did:key of another kind of key", () => fromDid(secp256k1));
  for (const [text, bytes] of [["", ""], ["_w", "ff"], ["--8", "fbef"], ["AAEC", "000102"]]) {
    checks.equal(`base64url of ${bytes}`, toBase64url(unhex(bytes)), text);
    checks.equal(`base64url back from ${text}`, fromBase64url(text), unhex(bytes));
  }
  checks.throws("base64url with padding", () => fromBase64url("_w=="));
  // RFC 9562, appendix A.6.
  const example = uuid7(1_645_557_742_000, unhex("0cc318c4dc0c0c07398f"));
  checks.equal("the UUIDv7 of RFC 9562", uuidText(example), "017f22e2-79b0-7cc3-98c4-dc0c0c07398f");
  const full = uuidText(uuid7(2 ** 48 - 1, unhex("ff".repeat(10))));
  checks.equal("the greatest UUIDv7", full, "ffffffff-ffff-7fff-bfff-ffffffffffff");
}

async function testKeysAndHashes(checks) {
  // RFC 8032 §7.1, test 1: the empty message.
  const secret = "9d61b19deffd5a60ba844af492ec2cc44449c5697b326919703bac031cae7f60";
  const publicKey = unhex("d75a980182b10ab7d54bfed3c964073a0ee172f3daa62325af021a68f707511a");
  const signature =
    "e5564300c360ac729086e2cc806e828a84877f1eb8e5d974d873e06522490155" +
    "5fb8821590a33bacc61e39701cf9b46bd25bf5f0595bbe24655141438e7a100b";
  const pkcs8 = unhex(`302e020100300506032b657004220420${secret}`);
  const key = await subtle.importKey("pkcs8", pkcs8, { name: "Ed25519" }, true, ["sign"]);
  checks.equal("RFC 8032 test 1: public key", fromBase64url((await subtle.exportKey("jwk", key)).x), publicKey);
  const made = new Uint8Array(await subtle.sign("Ed25519", key, new Uint8Array()));
  checks.equal("RFC 8032 test 1: signature", hex(made), signature);
  const did = "did:key:z6MktwupdmLXVVqTzCw4i46r4uGyosGXRnR3XjN4Zq7oMMsw";
  checks.equal("RFC 8032 test 1: did:key", toDid(publicKey), did);
  checks.equal("RFC 8032 test 1: back from did:key", fromDid(did), publicKey);

  const [one, two] = await Promise.all([newPeer(), newPeer()]);
  const body = encode({ type: "join" });
  const signatures = await signBody(body, [one, two]);
  const ascending = compareBytes(signatures[0][0], signatures[1][0]) < 0;
  checks.equal("signatures stand in ascending order of keys", ascending, true);
  checks.equal("a signature verifies", await verifySignature(body, signatures[0]), true);
  checks.equal("not over another body", await verifySignature(encode({ type: "pay" }), signatures[0]), false);
  checks.equal("not under another key", await verifySignature(body, [signatures[0][0], signatures[1][1]]), false);

  const emptyLeaf = "6e340b9cffb37a989ca544e6bb780a2c78901d3fb33738768511a30617afa01d";
  checks.equal("RFC 6962: the hash of an empty leaf", hex(await leafHash(new Uint8Array())), emptyLeaf);
  // The three below were computed with Python's hashlib over bytes written out by hand.
  const entry = {
    seq: 2, at: 1_700_000_000_000, body: Uint8Array.of(0x80),
    signatures: [[new Uint8Array(32), new Uint8Array(64)]], postings: [["pay", "pool", "WRG", -5n]],
  };
  const leaf = "f02355e668c76c49ce2deb470d88952c2661fddb0628e92e4029703aec60306a";
  checks.equal("a leaf", hex(await entryLeaf(entry)), leaf);
  const seal = await sealMemo({ salt: new Uint8Array(16), text: "für dich\n" });
  checks.equal("a seal", hex(seal), "7567ca201f764ddfbaaa983f8870b4774ebfc6d41dc342933c6975d35b86698b");
  checks.equal("a commons", hex(await commonsId(Uint8Array.of(0x80))), "3081126965e48f52dd7b3b9d4d8a70a1");
}

const INTS = [
  [0n, "00"], [1n, "01"], [127n, "7f"], [128n, "cc80"], [255n, "ccff"], [256n, "cd0100"], [65_535n, "cdffff"],
  [65_536n, "ce00010000"], [2n ** 32n - 1n, "ceffffffff"], [2n ** 32n, "cf0000000100000000"],
  [10n ** 15n, "cf00038d7ea4c68000"], [2n ** 53n + 1n, "cf0020000000000001"], [2n ** 63n - 1n, "cf7fffffffffffffff"],
  [-1n, "ff"], [-32n, "e0"], [-33n, "d0df"], [-128n, "d080"], [-129n, "d1ff7f"], [-32_768n, "d18000"],
  [-32_769n, "d2ffff7fff"], [-(2n ** 31n), "d280000000"], [-(2n ** 31n) - 1n, "d3ffffffff7fffffff"],
  [-(2n ** 63n), "d38000000000000000"],
];

function testCanonicalBytes(checks) {
  const sixteen = Object.fromEntries(Array.from({ length: 16 }, (_, i) => [`k${String(i).padStart(2, "0")}`, 0n]));
  const values = [
    ...INTS, [null, "c0"], [false, "c2"], [true, "c3"], ["", "a0"], ["é", "a2c3a9"], ["\ufeff", "a3efbbbf"],
    ["a".repeat(31), `bf${"61".repeat(31)}`], ["a".repeat(32), `d920${"61".repeat(32)}`],
    ["a".repeat(255), `d9ff${"61".repeat(255)}`], ["a".repeat(256), `da0100${"61".repeat(256)}`],
    ["a".repeat(65_536), `db00010000${"61".repeat(65_536)}`],
    [new Uint8Array(0), "c400"], [new Uint8Array(255), `c4ff${"00".repeat(255)}`],
    [new Uint8Array(256), `c50100${"00".repeat(256)}`], [new Uint8Array(65_536), `c600010000${"00".repeat(65_536)}`],
    [[], "90"], [Array(15).fill(0n), `9f${"00".repeat(15)}`], [Array(16).fill(0n), `dc0010${"00".repeat(16)}`],
    [Array(65_536).fill(0n), `dd00010000${"00".repeat(65_536)}`],
    [{}, "80"], [sixteen, `de0010${Object.keys(sixteen).map((key) => `a3${hex(utf8.encode(key))}00`).join("")}`],
    [{ b: 1n, a: 2n, aa: 3n }, "83a16102a2616103a16201"],
    // In UTF-8 the astral key is the greater one, in UTF-16 code units the smaller: byte order decides.
    [{ "\u{10000}": 1n, "\uffff": 2n }, "82a3efbfbf02a4f090808001"],
  ];
  for (const [value, bytes] of values) {
    const name = `${show(value).slice(0, 40)} ↔ ${bytes.slice(0, 24)}`;
    checks.equal(`encode ${name}`, hex(encode(value)), bytes);
    checks.equal(`decode ${name}`, decodeCanonical(unhex(bytes)), value);
  }
  const refused = [
    "cc7f", "cd00ff", "ce0000ffff", "cf00000000ffffffff", "d0ff", "d07f", "d1ff80", "d200000001", "d90161", "da000161",
    "c5000100", "dc0000", "de0000", "82a16200a16100", "82a16100a16100", "8100c0", "ca3f800000", "cb3ff8000000000000",
    "d40000", "c1", "", "9100c0", "a2c3", "a1ff", "a3eda080", "cfffffffffffffffff", "91".repeat(17) + "c0",
  ];
  for (const bytes of refused) checks.throws(`refuse ${bytes}`, () => decodeCanonical(unhex(bytes)));
  for (const value of [1.5, NaN, 2 ** 53, 2n ** 63n, -(2n ** 63n) - 1n, undefined, "\ud800"]) {
    checks.throws(`nothing encodes ${String(value)}`, () => encode(value));
  }
  const deep = (levels) => (levels === 0 ? 0n : [deep(levels - 1)]);
  checks.equal("16 levels", hex(encode(deep(16))), `${"91".repeat(16)}00`);
  checks.throws("17 levels", () => encode(deep(17)));
}

function testLaw(checks) {
  const daily = { tick_seconds: 86_400, rest_ticks: 0, brackets: [[0n, 673_197n]], melt_to: "pool" };
  const account = (balance) => ({ balance, inflow: new Map([[100, balance]]), tick: 100 });
  // 10^9 loses 673,197; then floor(999,326,803 · 673,197 / 10^9) = 672,743, both done by hand.
  const held = account(10n ** 9n);
  checks.equal("nothing melts within a tick", melt(held, 100, daily), 0n);
  checks.equal("the first tick end", melt(held, 101, daily), 673_197n);
  checks.equal("the second", melt(held, 102, daily), 672_743n);
  checks.equal("what is left", held.balance, 998_654_060n);
  checks.equal("dust does not melt", melt(account(1_485n), 200, daily), 0n);
  const rested = account(10n ** 9n);
  checks.equal("three tick ends are spared", melt(rested, 103, { ...daily, rest_ticks: 3 }), 0n);
  checks.equal("the fourth is not", melt(rested, 104, { ...daily, rest_ticks: 3 }), 673_197n);
  const steps = [[0n, 0n], [100n, 10n ** 8n], [200n, 5n * 10n ** 8n]];
  const fees = [99n, 100n, 109n, 110n, 200n, 201n, 202n, 300n].map((still) => feeOn(still, steps));
  checks.equal("brackets are marginal and floored each", fees, [0n, 0n, 0n, 1n, 10n, 10n, 11n, 60n]);
  checks.equal("ticks", [tickOf(86_399_999, daily), tickOf(86_400_000, daily)], [0, 1]);

  const [a, b] = [new Uint8Array(32).fill(1), new Uint8Array(32).fill(2)];
  const books = new Books(daily, "WRG");
  books.apply({ type: "issue", to: a, amount: 10n ** 9n }, 0);
  const paid = books.apply({ type: "pay", by: a, legs: [[b, 10n ** 15n]], balancing: true }, DAY_MS);
  const melted = [["melt", toDid(a), "WRG", -673_197n], ["melt", "pool", "WRG", 673_197n]];
  const moved = [["pay", toDid(a), "WRG", -999_326_803n], ["pay", toDid(b), "WRG", 999_326_803n]];
  checks.equal("melt comes before the payment, which sends the rest", paid, [...melted, ...moved]);
  const later = books.balanceAt(toDid(b), 2);
  checks.equal("a read changes nothing", [later, books.balanceAt(toDid(b), 2)], [later, later]);
  checks.equal("and melts what it shows", later, { balance: 998_654_060n, nextMelt: 672_290n });
}

async function selftest(checks) {
  testNames(checks);
  await testKeysAndHashes(checks);
  testCanonicalBytes(checks);
  testLaw(checks);
  const link = (text) => nextLink({ headers: new Headers({ link: text }), url: "http://h/v1/a?x=1" });
  checks.equal("a relative link", link('<?after=3>; rel="next"'), "http://h/v1/a?after=3");
  checks.equal("the right one of two", link('<http://h/p>; rel="prev", <http://h/n>; rel="next"'), "http://h/n");
  checks.equal("no next link", link('<http://h/p>; rel="prev"'), undefined);
}

// ---------------------------------------------------------------------------------------------- main

async function main([target]) {
  if (target === undefined) throw new Error("usage: node stranger.mjs http://127.0.0.1:PORT | --selftest");
  const story = new Story(target);
  const { checks } = story;
  try {
    await (target === "--selftest" ? selftest(checks) : live(story));
  } catch (error) {
    checks.failures.push(`stopped by ${error.stack ?? error}${error.cause ? ` (${error.cause})` : ""}`);
  }
  if (checks.failures.length > 0) {
    console.log(`${checks.failures.length} of ${checks.count} checks differ:\n${checks.failures.join("\n")}`);
    return 1;
  }
  const commons = story.commons && hex(story.commons);
  console.log(JSON.stringify({ ok: true, checks: checks.count, commons }));
  return 0;
}

process.exitCode = await main(process.argv.slice(2)).catch((error) => {
  console.log(error.message);
  return 1;
});
