/** A message of the protocol `sallyport.v1`; docs/browsers.md has the list. */
export interface Word {
  type: string;
  ref?: string | number;
  seq?: number;
  call?: string;
  [more: string]: unknown;
}

/** Who signs in. */
export interface Credentials {
  /** Directory number of an agent; a customer has none. */
  number?: string;
  /** What the SIP server wants of that number. */
  password?: string;
  /** Bearer token. */
  token?: string;
  /** Shown to those who are called. */
  displayName?: string;
}

/** Something did not work. */
export class SallyportError extends Error {
  constructor(
    /** As in the type of a problem document: `token`, `offer`, `rejected`, `too_many_calls` ... */
    readonly code: string,
    detail: string,
    /** Final SIP status, where telephony gave one. */
    readonly status?: number,
    /** Seconds until another attempt is worth while. */
    readonly retryAfter?: number,
  ) {
    super(detail);
    this.name = "SallyportError";
  }

  static of(word: Word): SallyportError {
    return new SallyportError(String(word["code"]), String(word["detail"]), word["status"] as number | undefined,
      word["retry_after"] as number | undefined);
  }
}
