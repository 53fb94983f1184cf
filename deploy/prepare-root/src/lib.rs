//! What runs in the initramfs between the activation of the logical volume and the switch to the new root.
//!
//! ```text
//! cmdline   which deployment, which volume: names become types before they become paths
//! level     evidence -> verified | verity | refusal                                     (pure)
//! mounts    the steps that make a deployment the root                                   (a plan, then its execution)
//! record    /run/slipway/booted.json
//! prepare   the four above in order
//! fresh     finds the booted disk and ...
//! ids       ... gives it fresh disk, volume and file-system ids, if it was written from an image
//! ```

pub mod cmdline;
pub mod fresh;
pub mod ids;
pub mod level;
pub mod mounts;
pub mod prepare;
pub mod record;
