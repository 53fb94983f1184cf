//! A plain Debian root directory becomes an image-mode tree.
