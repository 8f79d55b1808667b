//! Calls as state machines, sans-IO.
