//! Latency harness and stories.
