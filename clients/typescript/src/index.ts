export { type ClientOptions, OrchestratorClient } from "./client.js";
export {
  AccessRevoked,
  ConnectRefused,
  OrchestratorError,
  PositionLost,
  RequestRefused,
  SignInRefused,
  Unreachable,
} from "./errors.js";
export type {
  AnyEvent,
  EphemeralEvent,
  EventMap,
  Logged,
  OrchestratorEvent,
  Position,
  PositionStore,
  Reset,
} from "./events.js";
export type { Credentials, SecondFactor, TokenProvider, Tokens } from "./tokens.js";
