// Requests to the server that sent this page. The key is kept in a variable of this file, and nowhere else.

let key = null;
let askForKey = async () => null;

/** What asks the user for the key: an async function of one boolean, whether a key was refused; null means no key. */
export function onKeyWanted(ask) {
  askForKey = ask;
}

/** The models that may be asked for. */
export async function models() {
  return (await answerOf("v1/models")).data;
}

/** Ids of a text. */
export async function tokenize(model, text, signal) {
  return (await answerOf("tokenize", { model, prompt: text }, signal)).tokens;
}

/** How far two models are apart on tokens. */
export async function divergence(pair, ids, signal) {
  return answerOf("v1/divergence", { models: pair, prompt: ids }, signal);
}

/** A completion, chunk by chunk. */
export async function* complete(body, signal) {
  const response = await ask("v1/completions", { ...body, stream: true }, signal);
  const reader = response.body.getReader();
  const decoder = new TextDecoder();
  let rest = "";
  for (;;) {
    const { done, value } = await reading(reader.read(), signal);
    if (done) throw new Error("The answer broke off. Try again.");
    const events = (rest + decoder.decode(value, { stream: true })).split("\n\n");
    rest = events.pop();
    for (const event of events) {
      const data = event.replace(/^data: /, "");
      if (data === "[DONE]") return;
      const chunk = JSON.parse(data);
      if (chunk.error) throw new RefusedError(chunk.error);
      yield chunk;
    }
  }
}

/** An answer of the server that is an error. `field` is what it complains about, or null. */
export class RefusedError extends Error {
  constructor({ message, param }) {
    super(message);
    this.field = param;
  }
}

async function answerOf(route, body, signal) {
  return reading((await ask(route, body, signal)).json(), signal);
}

/** The response, which is none of an error; the key is asked for as often as the server wants it. */
async function ask(route, body, signal) {
  for (;;) {
    const headers = body ? { "Content-Type": "application/json" } : {};
    if (key !== null) headers.Authorization = `Bearer ${key}`;
    const request = { method: body ? "POST" : "GET", headers, body: body && JSON.stringify(body), signal };
    const response = await reading(fetch(route, request), signal);
    if (response.ok) return response;
    const refusal = await response.json().catch(() => null);
    if (response.status !== 401) {
      throw new RefusedError(refusal?.error ?? { message: `The server answered ${response.status}.`, param: null });
    }
    const given = await askForKey(key !== null);
    if (given === null) throw new Error("This server needs its key. Reload the page to enter it.");
    key = given;
  }
}

/** The result of a promise of the network; where it is lost, an error that says what to do. */
async function reading(promise, signal) {
  try {
    return await promise;
  } catch (error) {
    if (signal?.aborted) throw error;
    throw new Error("The server does not answer. See whether it still runs, and try again.");
  }
}
