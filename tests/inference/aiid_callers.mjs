// The programs of the AI Incident Database that call the service, and the single call that can replace two of theirs.
// Run as `node aiid_callers.mjs WAY URL TEXT`; prints what the program keeps, as JSON.

const TRIES = 6;
const URL_CHARACTERS = 2048;

// The site's rewriting of `msg`.
const readMsg = (msg) => JSON.parse(msg.replace(/\(/g, "[").replace(/\)/g, "]"));

// Up to six tries without a pause and without a time-out of its own.
async function post(url, body) {
  let status;
  for (let attempt = 0; attempt < TRIES; attempt++) {
    const response = await fetch(url, {
      method: "POST",
      headers: { "Content-Type": "application/json" },
      body: JSON.stringify(body),
    });
    const text = await response.text();
    if (response.ok) return JSON.parse(text).body;
    status = response.status;
  }
  throw new Error(`${status} after ${TRIES} tries`);
}

const kept = (embedding, msg) => ({ ...embedding, similar: readMsg(msg) });

const ways = {
  // The site: a vector for the text, then the incidents for the vector. `num` and `embed` are strings.
  async two(url, text) {
    const { embedding } = await post(`${url}/text-to-embed`, { text });
    const { msg } = await post(`${url}/embed-to-db-similar`, { num: "3", embed: JSON.stringify(embedding.vector) });
    return kept(embedding, msg);
  },

  async one(url, text) {
    const { embedding, msg } = await post(`${url}/similar`, { text, num: "3", embedding: true });
    return kept(embedding, msg);
  },

  // The news job: one GET, with its URL cut wherever the limit falls.
  async news(url, text) {
    const cut = `${url}/text-to-embed?text=${encodeURIComponent(text)}`.slice(0, URL_CHARACTERS);
    const response = await fetch(cut, { signal: AbortSignal.timeout(10_000) });
    const { body } = await response.json();
    // What Node itself reads in the URL that was cut.
    const read = new URL(cut).searchParams.get("text");
    return { status: response.status, url: cut, read, ...body.embedding };
  },
};

const [way, url, text] = process.argv.slice(2);
console.log(JSON.stringify(await ways[way](url, text)));
