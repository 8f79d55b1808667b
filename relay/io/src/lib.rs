//! The edge: AF_XDP and UDP ports.
