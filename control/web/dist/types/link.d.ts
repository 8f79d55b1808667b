import { Emitter } from "./emitter.js";
import { Credentials, SallyportError, Word } from "./words.js";
/** `up`: signed in. `waiting`: the connection dropped and comes back. */
export type LinkState = "idle" | "connecting" | "up" | "waiting";
interface LinkEvents {
    state: LinkState;
    word: Word;
    /** The session is another one: whatever the former one had is over. */
    renewed: undefined;
    over: SallyportError;
}
/** What a page has to keep of a session to go on with it when it is loaded anew. */
export interface Kept {
    session: string;
    number: string | null;
    seq: number;
    refs: number;
}
/** One session over as many WebSocket connections as it takes. */
export declare class Link extends Emitter<LinkEvents> {
    private readonly url;
    private readonly reconnect;
    state: LinkState;
    session: string;
    number: string | null;
    private socket?;
    private credentials;
    private seq;
    private refs;
    private attempts;
    private timer?;
    private pulse?;
    private readonly pending;
    private entering?;
    private readonly online;
    constructor(url: string, reconnect: boolean);
    /** Connects and signs in, or goes on with a session. */
    signIn(credentials: Credentials, kept?: Kept): Promise<void>;
    /** Asks; a request that the connection drops under is asked again on the next one, and obeyed once. `begun` hears of what
     * comes before the outcome. */
    request(word: Word, begun?: (word: Word) => void): Promise<Word>;
    /** Another token for the next sign-in. */
    remember(token: string): void;
    /** What is to be kept where the page goes; `undefined` without a session. */
    kept(): Kept | undefined;
    /** Signs out for good. */
    close(): void;
    /** Tries at once to come back. */
    hurry(): void;
    private change;
    private write;
    private connect;
    private greeting;
    private take;
    private settle;
    private entered;
    /** The server does not know the session any more: a new one, in which nothing of the former is under way. */
    private renew;
    private answered;
    private beat;
    private dropped;
    private end;
}
export {};
