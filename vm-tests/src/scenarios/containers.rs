//! Workloads on the machine's own storage.

use anyhow::{Result, ensure};

use super::states::{busybox_image, quadlet_job, quadlet_job_runs};
use crate::context::Context;
use crate::world::State;

pub fn run(context: &Context<'_>) -> Result<()> {
    let server = context.updates()?;
    let guest = context.resume(State::Booted, &server)?;
    let pool = guest.shell("lvs --noheadings -o lv_name,pool_lv,segtype host")?;
    ensure!(pool.contains("thin-pool"), "there is no thin pool: {pool}");
    let source = guest.shell("findmnt -no SOURCE,FSTYPE /var/lib/containers")?;
    ensure!(source.starts_with("/dev/mapper/host-") && source.contains("xfs"), "containers lie on {source}");
    busybox_image(&guest)?;
    let driver = guest
        .shell("podman info -f '{{.Store.GraphDriverName}} {{.Host.OCIRuntime.Name}} {{.Host.NetworkBackend}}'")?;
    ensure!(driver == "overlay crun netavark", "podman uses {driver}");
    for engine in ["podman", "docker"] {
        let said = guest.shell(&format!("{engine} run --rm --network none busybox:1 /bin/busybox echo hello"))?;
        ensure!(said.lines().any(|l| l == "hello"), "{engine} said {said}");
    }

    // A container with the default network, reached through a published port.
    guest.shell(
        "podman run -d --name web -p 8080:80 busybox:1 \
           /bin/busybox sh -c 'mkdir /www; echo page > /www/index.html; exec busybox httpd -f -p 80 -h /www'
         for i in $(seq 40); do curl -fsS http://127.0.0.1:8080/ && break; sleep 0.5; done | grep -x page",
    )?;

    // A Quadlet unit, for which systemd runs the container; `upgrade-keeps` sees it started by a boot.
    quadlet_job(&guest)?;
    guest.shell("systemctl daemon-reload && systemctl start job.service")?;
    quadlet_job_runs(&guest)
}
