import { Call, MediaOptions } from "./call.js";
import { Emitter } from "./emitter.js";
import { LinkState } from "./link.js";
import { Credentials, SallyportError } from "./words.js";
/** How a client is made; every member may be left out. */
export interface Options {
    /** The appliance, `https://calls.example.com`; default: where the page or the script comes from. */
    url?: string;
    /** Bearer token. */
    token?: string;
    iceServers?: RTCIceServer[];
    /** Candidates follow the offer as they are found (default), or go along with it. */
    trickle?: boolean;
    /** Whether a connection that drops comes back by itself (default). */
    reconnect?: boolean;
    /** Whether the far side is played by itself (default). */
    play?: boolean;
    /** Whether calls that talk outlive the page, for {@link Sallyport.restore} of the next one in this tab. */
    keep?: boolean;
    /** Milliseconds between two `quality` events of a call; 0: none. */
    qualityInterval?: number;
}
/** What happens to a client. */
export interface ClientEvents {
    /** `up`: signed in; `waiting`: the connection dropped and comes back. */
    connection: LinkState;
    /** A call rings here. */
    incoming: Call;
    /** A call begins, of either direction. */
    call: Call;
    /** State of the registration of an agent's number with its SIP server. */
    registration: {
        state: string;
        detail?: string;
    };
    /** Signed out, not by us. */
    signedout: SallyportError;
}
/** A browser's calls by a Sallyport appliance. */
export declare class Sallyport extends Emitter<ClientEvents> {
    /** Calls that are not over. */
    readonly calls: Set<Call>;
    private readonly link;
    private readonly settings;
    private readonly token;
    private entering?;
    constructor(options?: Options);
    /** State of the connection. */
    get connection(): LinkState;
    /** The number under which this browser is called; `null` for a customer. */
    get number(): string | null;
    /** Signs in: an agent with its number, a customer without. */
    signIn(credentials?: Credentials): Promise<void>;
    /** Stays signed in by another token, before the one in use expires; a session whose token has expired ends with its last call. */
    renew(token: string): Promise<void>;
    /** Goes on with the calls of the page that was here before, in this tab; it was made with `keep`. Another connection of ours
     * takes each of them up. `credentials`: for the case that the session is lost meanwhile. */
    restore({ media, ...credentials }?: Credentials & MediaOptions): Promise<Call[]>;
    /** Whether there is something to be left for the next page. */
    private leave;
    /** Signs out; calls end. */
    signOut(): Promise<void>;
    /** Calls a number; signs in as a customer where nobody is signed in yet. `data`: headers of the INVITE, `X-...`. What becomes
     * of the call is told by its events. */
    call(to: string, options?: MediaOptions & {
        data?: Record<string, string>;
    }): Call;
    private add;
    private take;
    /** The appliance's control was replaced: calls that talk go on, others are over. */
    private renewed;
    private over;
}
