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
export declare class SallyportError extends Error {
    /** As in the type of a problem document: `token`, `offer`, `rejected`, `too_many_calls` ... */
    readonly code: string;
    /** Final SIP status, where telephony gave one. */
    readonly status?: number | undefined;
    /** Seconds until another attempt is worth while. */
    readonly retryAfter?: number | undefined;
    constructor(
    /** As in the type of a problem document: `token`, `offer`, `rejected`, `too_many_calls` ... */
    code: string, detail: string, 
    /** Final SIP status, where telephony gave one. */
    status?: number | undefined, 
    /** Seconds until another attempt is worth while. */
    retryAfter?: number | undefined);
    static of(word: Word): SallyportError;
}
