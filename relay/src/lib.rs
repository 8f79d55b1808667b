//! The relay daemon.
