//! Contract 2: the C header shared by kernel and userspace.
