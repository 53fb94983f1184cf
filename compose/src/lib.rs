//! Build side library.
