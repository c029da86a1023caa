/** What only the agent knows about its calls; docs/your-agent.md says what each part means. */
export interface EpisodeLabels {
  episode?: string;
  conversation?: string;
  environment?: string;
  task?: string;
  seed?: number | bigint;
  state?: string;
  principal?: string;
  agent?: string;
  /** False: the gateway records nothing, as the agent publishes its steps itself. */
  capture?: boolean;
}

/**
 * The headers of the calls of one episode, for `headers` of a call or `defaultHeaders` of the openai SDK.
 *
 * Never throws: a value that no header can hold, which is one that is not printable ASCII or
 * is longer than 512 characters, is left out with a warning.
 */
export function episodeHeaders(labels?: EpisodeLabels): Record<string, string>;

/** Anything with `get`, such as `Headers`. */
export interface ReadsHeaders {
  get(name: string): string | null;
}

/** The receipt that came with a reply or with its headers; null for a call that was not recorded. */
export function receiptOf(reply: ReadsHeaders | { headers: ReadsHeaders }): string | null;

/** A verdict on a receipt or an episode, with at least one of `success`, `score` and `rating`. */
export interface Verdict {
  receipt?: string | null;
  episode?: string;
  success?: boolean;
  /** From 0 to 1. */
  score?: number;
  rating?: "up" | "down";
  verifier?: string;
  evidence?: Record<string, unknown>;
  comment?: string;
  principal?: string;
  /** The same id again is the same feedback; a fresh one by default. */
  feedbackId?: string;
}

export interface FeedbackOptions {
  /** The bearer token of a gateway that wants one. */
  token?: string;
  /** The longest that one attempt takes, in milliseconds: 5000 by default. */
  timeoutMs?: number;
  /** How often the gateway is asked in all while it is away: 3 by default. */
  attempts?: number;
}

/** The feedback was not taken. `status` is that of the gateway's answer, undefined where there was none. */
export class FeedbackError extends Error {
  status?: number;
}

/** Feedback without an `error` is in the log; `success` and `score` are the verdict as the gateway understood it. */
export interface FeedbackResult {
  feedbackId: string;
  success?: boolean;
  score?: number;
  error?: FeedbackError;
}

/**
 * Post a verdict to the gateway at `baseUrl`, the agent's own, with or without `/v1`.
 *
 * Never throws and never rejects: the result has the error, and `console.warn` says it. A gateway that is not reached, or
 * answers 429, 502, 503 or 504, is asked again with the same id. Redirects are never followed.
 */
export function sendFeedback(baseUrl: string, verdict: Verdict, options?: FeedbackOptions): Promise<FeedbackResult>;
