//! The translator, sans-IO.
