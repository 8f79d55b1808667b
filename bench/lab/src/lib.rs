//! Network namespaces and real peers.
