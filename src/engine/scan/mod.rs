//! One scan of a snapshot. Runs in the snapshot child.
