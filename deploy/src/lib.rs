//! The machine side: deployments, planned and carried out.
//!
//! Every verb is load → plan → print → execute. [`Machine::load`] reads, once; everything in [`plan`] is pure; everything
//! in [`execute`] writes and chooses nothing.

pub mod check;
pub mod etc;
pub mod execute;
pub mod first;
pub mod firstboot;
pub mod generate;
pub mod json;
pub mod machine;
pub mod paths;
pub mod plan;
pub mod state;
pub mod status;
pub mod tree;
pub mod treeinfo;

mod id;

pub use machine::{Deployment, Machine};

pub use id::{BadId, DeploymentId};
