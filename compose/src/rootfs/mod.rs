//! Unpacks packages into a root directory and configures them in a sandbox.
