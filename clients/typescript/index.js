// @ts-check
// What an agent in JavaScript needs to work with Ratchet's gateway. There is no Kafka producer: an agent that does not ask
// the gateway publishes the JSON of docs/events.md with a Kafka client of its own. The types are in index.d.ts.

const PREFIX = "x-ratchet-";
const PRINTABLE_ASCII = /^[ -~]*$/;
// It is away for now: the same feedback may be taken later.
const PASSING = new Set([429, 502, 503, 504]);
const FIRST_PAUSE_MS = 500;
const LONGEST_PAUSE_MS = 2000;
const LONGEST_LABEL = 512;
const LONGEST_MESSAGE = 500;

/** @type {typeof import("./index.js").episodeHeaders} */
export function episodeHeaders({ capture = true, ...labels } = {}) {
  const { episode, conversation, environment, task, seed, state, principal, agent } = labels;
  const values = { episode, conversation, environment, task, seed, state, principal, agent };
  /** @type {Record<string, string>} */
  const headers = {};
  for (const [name, value] of Object.entries({ ...values, capture: capture ? undefined : "off" })) {
    const text = String(value ?? "").trim();
    if (!PRINTABLE_ASCII.test(text) || text.length > LONGEST_LABEL) {
      const remedy = `its value is not printable ASCII of at most ${LONGEST_LABEL} characters`;
      console.warn(`ratchet: the header ${PREFIX}${name} is left out: ${remedy}`);
    } else if (text) {
      headers[PREFIX + name] = text;
    }
  }
  return headers;
}

/** @type {typeof import("./index.js").receiptOf} */
export function receiptOf(reply) {
  return ("headers" in reply ? reply.headers : reply).get(`${PREFIX}receipt`);
}

export class FeedbackError extends Error {
  name = "FeedbackError";

  /** @param {string} message @param {number} [status] */
  constructor(message, status) {
    super(message);
    this.status = status;
  }
}

/** @type {typeof import("./index.js").sendFeedback} */
export async function sendFeedback(baseUrl, verdict, options = {}) {
  let feedbackId = "";
  try {
    const { feedbackId: given, ...said } = verdict;
    if (typeof said.score === "number" && !Number.isFinite(said.score)) throw invalid("its score is not a number");
    feedbackId = given ?? crypto.randomUUID();
    const body = JSON.stringify({ ...said, feedback_id: feedbackId });
    return { feedbackId, ...(await posted(feedbackUrl(baseUrl), feedbackId, body, options)) };
  } catch (thrown) {
    const error = thrown instanceof FeedbackError ? thrown : invalid(thrown instanceof Error ? thrown.name : "an argument");
    console.warn(`ratchet: feedback was not taken: ${error.message}`);
    return { feedbackId, error };
  }
}

/** @param {string} reason */
function invalid(reason) {
  return new FeedbackError(`the feedback is not valid: ${reason}; correct it`);
}

/** @param {string} baseUrl */
function feedbackUrl(baseUrl) {
  const url = URL.canParse(baseUrl) ? new URL(baseUrl) : undefined;
  if (url === undefined || !/^https?:$/.test(url.protocol) || url.username || url.search || url.hash) {
    throw invalid("the address is not that of a gateway, as http://127.0.0.1:8420/v1");
  }
  return `${url.href.replace(/\/+$/, "").replace(/\/v1$/, "").replace(/\/+$/, "")}/v1/feedback`;
}

/**
 * @param {string} url
 * @param {string} feedbackId
 * @param {string} body
 * @param {import("./index.js").FeedbackOptions} options
 */
async function posted(url, feedbackId, body, { token, timeoutMs = 5000, attempts = 3 }) {
  /** @type {Record<string, string>} */
  const headers = { "content-type": "application/json" };
  if (token) {
    if (!PRINTABLE_ASCII.test(token)) throw invalid("the token is not printable ASCII, which no header can hold");
    headers.authorization = `Bearer ${token}`;
  }
  for (let attempt = 1; ; attempt++) {
    let pauseMs = FIRST_PAUSE_MS * 2 ** (attempt - 1);
    let failure;
    const signal = AbortSignal.timeout(timeoutMs); // outside: what it throws is the caller's mistake
    try {
      const response = await fetch(url, { method: "POST", headers, body, redirect: "manual", signal });
      const text = await response.text();
      if (!PASSING.has(response.status)) return read(response, text, url, feedbackId);
      failure = refusal(response, text, url);
      const wished = response.headers.get("retry-after") ?? "";
      if (/^\d+$/.test(wished)) pauseMs = 1000 * Number(wished);
    } catch (error) {
      if (error instanceof FeedbackError) throw error;
      failure = new FeedbackError(`${url} did not answer: ${reasonOf(error)}; is the gateway running?`);
    }
    if (!(attempt < attempts)) throw failure; // NaN, too, is no further attempt
    await new Promise((resolve) => setTimeout(resolve, Math.min(pauseMs, LONGEST_PAUSE_MS)));
  }
}

/** @param {unknown} error */
function reasonOf(error) {
  const { message, cause } = /** @type {Error} */ (error);
  return cause instanceof Error ? `${message}: ${cause.message}` : message;
}

/** @param {Response} response @param {string} text @param {string} url @param {string} feedbackId */
function read(response, text, url, feedbackId) {
  if (!response.ok) throw refusal(response, text, url);
  const said = parsed(text);
  if (said?.feedback_id !== feedbackId || typeof said.success !== "boolean" || typeof said.score !== "number") {
    throw new FeedbackError(`${url} answered ${response.status}, and not as a gateway does`, response.status);
  }
  return { success: said.success, score: said.score };
}

/** @param {Response} response @param {string} text @param {string} url */
function refusal(response, text, url) {
  const status = response.status;
  if (response.type === "opaqueredirect" || (status >= 300 && status < 400)) {
    const place = response.headers.get("location") ?? "another address";
    return new FeedbackError(`${url} redirected to ${place}; name that address if you trust it`, status);
  }
  const message = String(parsed(text)?.error?.message ?? text).slice(0, LONGEST_MESSAGE);
  return new FeedbackError(`${url} refused with ${status}: ${message.replace(/\p{Cc}/gu, " ")}`, status);
}

/** @param {string} text */
function parsed(text) {
  try {
    return JSON.parse(text);
  } catch {
    return undefined; // the caller says what came instead
  }
}
