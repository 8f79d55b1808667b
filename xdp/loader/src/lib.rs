//! Loads, attaches, pins and reads the XDP program.
