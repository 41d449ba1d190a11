// A Fedify server's view of the Fediverse, driven from the tests: one request as a line of JSON on standard input, one
// answer as a line on standard output. It reaches loopback and nothing else, so that a document whose context Fedify
// does not bring along is a failure here rather than a look into the Internet.

import { createInterface } from "node:readline";

// Fedify asks for Node 22 for the sake of this one method.
if (!ArrayBuffer.prototype.transfer) {
  Object.defineProperty(ArrayBuffer.prototype, "transfer", {
    configurable: true,
    writable: true,
    value(length = this.byteLength) {
      const moved = new ArrayBuffer(length);
      new Uint8Array(moved).set(new Uint8Array(this, 0, Math.min(length, this.byteLength)));
      return moved;
    },
  });
}

// Handles are looked up over https; the bridge of the tests has no certificate.
const reach = globalThis.fetch;
globalThis.fetch = (input, init) => {
  const request = new Request(input, init);
  const url = new URL(request.url);
  if (url.hostname !== "127.0.0.1") throw new TypeError(`not reached from the tests: ${url.href}`);
  if (url.protocol !== "https:") return reach(request);
  url.protocol = "http:";
  return reach(new Request(url, request));
};

const fedify = await import("@fedify/fedify");
const documentLoader = fedify.getDocumentLoader({ allowPrivateAddress: true });
const loaders = { documentLoader, contextLoader: documentLoader };
const bytes = (base64) => Uint8Array.from(Buffer.from(base64, "base64"));

async function rsaKey(pem) {
  const der = bytes(pem.replace(/-----[^-]+-----/g, "").replace(/\s/g, ""));
  return await crypto.subtle.importKey("pkcs8", der, { name: "RSASSA-PKCS1-v1_5", hash: "SHA-256" }, true, ["sign"]);
}

async function told(object) {
  if (object == null) return null;
  const keys = [];
  if (typeof object.getPublicKeys === "function") {
    for await (const key of object.getPublicKeys(loaders)) keys.push({ id: key.id?.href, owner: key.ownerId?.href });
  }
  const methods = [];
  if (typeof object.getAssertionMethods === "function") {
    for await (const key of object.getAssertionMethods(loaders)) {
      methods.push({ id: key.id?.href, controller: key.controllerId?.href, algorithm: key.publicKey?.algorithm?.name });
    }
  }
  return {
    kind: object.constructor.name,
    id: object.id?.href,
    author: object.attributionId?.href,
    inbox: object.inboxId?.href,
    sharedInbox: object.endpoints?.sharedInbox?.href,
    name: object.name?.toString(),
    handle: object.preferredUsername?.toString(),
    content: object.content?.toString(),
    quote: object.quoteUrl?.href,
    total: object.totalItems,
    actor: object.actorId?.href,
    object: object.objectId?.href,
    keys,
    methods,
    document: await object.toJsonLd(loaders),
  };
}

const commands = {
  async lookup({ what }) {
    return await told(await fedify.lookupObject(what, loaders));
  },
  async find({ handle }) {
    // As `lookupObject` does with a handle, which cannot be told to do it on loopback.
    const found = await fedify.lookupWebFinger(`acct:${handle}`, { allowPrivateAddress: true });
    const types = ["application/activity+json", 'application/ld+json; profile="https://www.w3.org/ns/activitystreams"'];
    const link = found?.links?.find((link) => link.rel === "self" && types.includes(link.type));
    return link == null ? null : await told(await fedify.lookupObject(link.href, loaders));
  },
  async read({ document }) {
    return await told(await fedify.Object.fromJsonLd(document, loaders));
  },
  async send({ method, url, body, spec, privatePem, keyId, bent }) {
    const headers = { "content-type": "application/activity+json", accept: "application/activity+json" };
    const request = new Request(url, { method, headers, body: body == null ? undefined : bytes(body) });
    const signed = await fedify.signRequest(request, await rsaKey(privatePem), new URL(keyId), { spec });
    const sent = bent == null ? signed : new Request(signed.url, { method, headers: signed.headers, body: bytes(bent) });
    const answer = await fetch(sent);
    return { status: answer.status, text: await answer.text(), headers: Object.fromEntries(signed.headers) };
  },
  async verify({ method, url, headers, body, spec }) {
    const request = new Request(url, { method, headers, body: body ? bytes(body) : undefined });
    const key = await fedify.verifyRequest(request, { ...loaders, spec });
    return key == null ? null : { id: key.id?.href, owner: key.ownerId?.href };
  },
  async proofKey() {
    const pair = await fedify.generateCryptoKeyPair("Ed25519");
    commands.pair = pair;
    return { multibase: await fedify.exportMultibaseKey(pair.publicKey) };
  },
  async prove({ document, keyId }) {
    const said = await fedify.Activity.fromJsonLd(document, loaders);
    const proved = await fedify.signObject(said, commands.pair.privateKey, new URL(keyId), loaders);
    return await proved.toJsonLd({ format: "compact", ...loaders });
  },
  async proven({ document }) {
    const found = [];
    const proof = await fedify.DataIntegrityProof.fromJsonLd(
      { "@context": document["@context"], ...document.proof }, loaders);
    const key = await fedify.verifyProof(document, proof, loaders);
    if (key != null) found.push(key.id?.href);
    return found;
  },
};

for await (const line of createInterface({ input: process.stdin })) {
  const { command, ...given } = JSON.parse(line);
  let answer;
  try {
    answer = { result: (await commands[command](given)) ?? null };
  } catch (error) {
    answer = { error: String(error?.stack ?? error) };
  }
  process.stdout.write(`${JSON.stringify(answer)}\n`);
}
process.exit(0);
