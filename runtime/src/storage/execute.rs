//! Does the steps of a plan. Chooses nothing.

use sys::{Cmd, CmdError};

use super::plan::{CHUNK, Plan, Step};
use super::{MOUNT_UNIT, POOL, TAG_FORMATTED, TAG_OURS, VOLUME};

/// Runs the steps in order; each one may be repeated.
pub fn run(plan: &Plan) -> Result<(), CmdError> {
    for step in &plan.steps {
        tracing::info!("{}", line(plan, step).line());
        line(plan, step).run()?;
    }
    Ok(())
}

/// The command of a step.
pub fn line(plan: &Plan, step: &Step) -> Cmd {
    let group = &plan.group;
    let lvm = |program: &str| {
        Cmd::new(program).env("LC_ALL", "C").arg("--yes").args(plan.devices.iter().map(|d| format!("--devices={d}")))
    };
    match step {
        Step::CreatePool { size, metadata } => lvm("lvcreate")
            .args(["--type", "thin-pool", "--name", POOL, "--addtag", TAG_OURS])
            .args([
                format!("--size={size}b"),
                format!("--poolmetadatasize={metadata}b"),
                format!("--chunksize={CHUNK}b"),
            ])
            .arg(group),
        Step::CreateVolume { size } => lvm("lvcreate")
            .args(["--type", "thin", "--name", VOLUME, "--addtag", TAG_OURS])
            .arg(format!("--virtualsize={size}b"))
            .args(["--thinpool", POOL])
            .arg(group),
        Step::Activate => {
            lvm("lvchange").args(["--activate", "y", "--ignoreactivationskip"]).arg(format!("{group}/{VOLUME}"))
        }
        Step::Format => Cmd::new("mkfs.xfs").args(["-q", "-f", "-L", POOL]).arg(format!("/dev/{group}/{VOLUME}")),
        Step::MarkFormatted => lvm("lvchange").args(["--addtag", TAG_FORMATTED]).arg(format!("{group}/{VOLUME}")),
        Step::Mount => Cmd::new("systemctl").args(["start", MOUNT_UNIT]),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_step_is_one_command_that_can_be_pasted_into_a_shell() {
        let plan = Plan { group: "host".to_owned(), devices: vec!["/dev/vda3".to_owned()], steps: Vec::new() };
        let text = |step| line(&plan, &step).line();
        assert_eq!(
            text(Step::CreatePool { size: 4190109696, metadata: 12582912 }),
            "LC_ALL=C lvcreate --yes --devices=/dev/vda3 --type thin-pool --name containers --addtag slipway.storage \
             --size=4190109696b --poolmetadatasize=12582912b --chunksize=65536b host"
        );
        assert_eq!(
            text(Step::CreateVolume { size: 4190109696 }),
            "LC_ALL=C lvcreate --yes --devices=/dev/vda3 --type thin --name containers-storage --addtag slipway.storage \
             --virtualsize=4190109696b --thinpool containers host"
        );
        assert_eq!(
            text(Step::Activate),
            "LC_ALL=C lvchange --yes --devices=/dev/vda3 --activate y --ignoreactivationskip host/containers-storage"
        );
        assert_eq!(text(Step::Format), "mkfs.xfs -q -f -L containers /dev/host/containers-storage");
        assert_eq!(
            text(Step::MarkFormatted),
            "LC_ALL=C lvchange --yes --devices=/dev/vda3 --addtag slipway.formatted host/containers-storage"
        );
        assert_eq!(text(Step::Mount), "systemctl start var-lib-containers.mount");
    }
}
