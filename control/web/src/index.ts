export { Call, type CallEvents, type CallState, type MediaOptions } from "./call.js";
export { Sallyport, type ClientEvents, type Options } from "./client.js";
export { type LinkState } from "./link.js";
export { type Quality } from "./media.js";
export { SallyportError, type Credentials } from "./words.js";
