// Against small servers of its own; with RATCHET_GATEWAY, also against a real gateway that calls its model `house`.
import assert from "node:assert/strict";
import { once } from "node:events";
import { createServer } from "node:http";
import { test } from "node:test";

import { FeedbackError, episodeHeaders, receiptOf, sendFeedback } from "./index.js";

console.warn = () => {};

/** A server that answers in turn with `answers` (status, headers, body); the last one again and again. */
async function answering(t, ...answers) {
  const requests = [];
  const server = createServer(async (request, response) => {
    let text = "";
    for await (const part of request) text += part;
    requests.push({ path: request.url, headers: request.headers, body: JSON.parse(text) });
    const [status, headers, body] = answers.length > 1 ? answers.shift() : answers[0];
    response.writeHead(status, headers);
    response.end(body ?? JSON.stringify({ feedback_id: requests.at(-1).body.feedback_id, success: true, score: 1 }));
  });
  server.listen(0, "127.0.0.1");
  await once(server, "listening");
  t.after(() => server.close());
  return { url: `http://127.0.0.1:${server.address().port}/v1`, requests };
}

const refused = (message) => JSON.stringify({ error: { message, type: "x", code: "x", param: null } });

test("headers are those of the labels that are given and that a header can hold", () => {
  assert.deepEqual(episodeHeaders(), {});
  const labels = { episode: "e-1", task: "orders/17", seed: 0, agent: "Küche", principal: "two\nlines", capture: false };
  assert.deepEqual(episodeHeaders(labels), {
    "x-ratchet-episode": "e-1",
    "x-ratchet-task": "orders/17",
    "x-ratchet-seed": "0",
    "x-ratchet-capture": "off",
  });
});

test("a receipt is read from a response or from its headers", () => {
  const response = new Response("", { headers: { "X-Ratchet-Receipt": "r.1" } });
  assert.deepEqual([receiptOf(response), receiptOf(response.headers), receiptOf(new Response())], ["r.1", "r.1", null]);
});

test("a gateway that is away is asked again with the same id", async (t) => {
  const { url, requests } = await answering(t, [503, { "retry-after": "0" }, refused("away")], [202, {}]);
  const result = await sendFeedback(url, { episode: "e", success: true }, { token: "secret" });
  assert.equal(result.error, undefined);
  assert.deepEqual([result.success, result.score, requests.length], [true, 1, 2]);
  assert.equal(requests[0].body.feedback_id, requests[1].body.feedback_id);
  assert.deepEqual([requests[0].path, requests[0].headers.authorization], ["/v1/feedback", "Bearer secret"]);
});

test("a refusal is told in the gateway's words and not repeated", async (t) => {
  const { url, requests } = await answering(t, [422, {}, refused("it contradicts itself")]);
  const { error } = await sendFeedback(url, { episode: "e", success: true });
  assert.ok(error instanceof FeedbackError);
  assert.equal(error.status, 422);
  assert.match(error.message, /refused with 422: it contradicts itself/);
  assert.equal(requests.length, 1);
});

test("a redirect is refused and gets no token", async (t) => {
  const other = await answering(t, [202, {}]);
  const { url } = await answering(t, [307, { location: other.url }, ""]);
  const { error } = await sendFeedback(url, { episode: "e", success: true }, { token: "secret" });
  assert.match(error?.message ?? "", /redirected to/);
  assert.equal(other.requests.length, 0);
});

test("nothing is thrown for a gateway that is not there or arguments that are wrong", async (t) => {
  const cycle = {};
  cycle.itself = cycle;
  const { url } = await answering(t, [200, {}, "<html>"]);
  const verdict = { episode: "e", success: true };
  for (const [given, said, options, words] of [
    [url, verdict, {}, /not as a gateway does/],
    ["http://127.0.0.1:1", verdict, {}, /did not answer/],
    ["nowhere", verdict, {}, /address/],
    ["http://ann:secret@127.0.0.1", verdict, {}, /address/],
    [url, { ...verdict, evidence: cycle }, {}, /not valid/],
    [url, undefined, {}, /not valid/],
    [url, verdict, { token: "secret\r\nx: y" }, /token is not printable/],
    [url, verdict, { timeoutMs: -1 }, /not valid/],
  ]) {
    const { error } = await sendFeedback(given, said, { attempts: 1, ...options });
    assert.match(error?.message ?? "", words);
    assert.doesNotMatch(error?.message ?? "", /secret/);
  }
});

test("a server that says nothing is given up", async (t) => {
  const server = createServer(() => {});
  server.listen(0, "127.0.0.1");
  await once(server, "listening");
  t.after(() => server.closeAllConnections());
  t.after(() => server.close());
  const url = `http://127.0.0.1:${server.address().port}`;
  const { error } = await sendFeedback(url, { episode: "e", success: true }, { attempts: 1, timeoutMs: 100 });
  assert.match(error?.message ?? "", /timeout/);
});

test("a call at the gateway gets a receipt, and feedback on it is taken", { skip: !process.env.RATCHET_GATEWAY }, async () => {
  const url = `${process.env.RATCHET_GATEWAY}/v1`;
  const headers = { "content-type": "application/json", ...episodeHeaders({ episode: "node", task: "lamps/1", seed: 3 }) };
  const body = JSON.stringify({ model: "house", messages: [{ role: "user", content: "It is dark." }], max_tokens: 4 });
  const response = await fetch(`${url}/chat/completions`, { method: "POST", headers, body });
  const result = await sendFeedback(url, { receipt: receiptOf(response), score: 0.25, verifier: "house" });
  assert.deepEqual({ ...result, feedbackId: "" }, { feedbackId: "", success: false, score: 0.25 });
});
