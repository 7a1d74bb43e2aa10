// Calls the gateway's HTTP side with the token of this page. Every refusal becomes a Problem (RFC 9457), so that a view has one
// thing to show; bodies go out as the text they were given, because a config's metric must arrive byte for byte.

export class Problem extends Error {
  constructor(status, body) {
    super(body.title || `The gateway answered ${status}.`);
    this.status = status;
    this.body = body;
    this.code = body.code ?? String(status);
  }
}

/** @returns call(method, path, {body, headers}) → {status, text, json, etag}; throws Problem, or TypeError without a network */
export function createHttp({ token, denied }) {
  return async function call(method, path, { body, headers = {} } = {}) {
    const type = body === undefined ? {} : { "content-type": "application/json" };
    const answer = await fetch(path, { method, body, headers: { authorization: `Bearer ${token()}`, ...type, ...headers } });
    const text = await answer.text();
    const isJson = /[/+]json/.test(answer.headers.get("content-type") ?? "");
    const json = isJson && text ? JSON.parse(text) : undefined;
    if (answer.status === 401) denied(json?.detail ?? "The token is not accepted any more.");
    if (!answer.ok) throw new Problem(answer.status, json ?? { title: text.slice(0, 200) });
    return { status: answer.status, text, json, etag: answer.headers.get("etag") };
  };
}
