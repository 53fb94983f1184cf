#!/bin/bash
# dracut module: verify and mount a Slipway deployment. Everything it needs lies in the tree:
#   /usr/lib/slipway/prepare-root                  one static program, also called slipway-fresh-ids
#   /usr/lib/slipway/tree.json                     what the tree requires
#   /usr/share/ostree/{trusted,revoked}.ed25519.d  the keys that may sign a commit, and those that no longer may

# Never by itself: an initramfs for another purpose must not get it.
check() {
    return 255
}

depends() {
    echo systemd-initrd lvm
    return 0
}

# The watchdogs: PID 1 of the initramfs opens the first one it finds (systemd.watchdog_sec=), so a kernel that hangs
# this early resets too.
installkernel() {
    hostonly='' instmods ext4 erofs overlay efivarfs
    hostonly='' instmods -o i6300esb iTCO_wdt sp5100_tco
}

install() {
    local directory key
    inst_simple "${dracutsysrootdir-}/usr/lib/slipway/prepare-root" /usr/lib/slipway/prepare-root
    ln -s prepare-root "$initdir/usr/lib/slipway/slipway-fresh-ids"
    inst_simple "$moddir/slipway-prepare-root.service" "$systemdsystemunitdir/slipway-prepare-root.service"
    inst_simple "$moddir/slipway-fresh-ids.service" "$systemdsystemunitdir/slipway-fresh-ids.service"
    inst_multiple modprobe

    inst_simple /usr/lib/slipway/tree.json
    for directory in /usr/share/ostree/trusted.ed25519.d /usr/share/ostree/revoked.ed25519.d \
        /etc/ostree/trusted.ed25519.d /etc/ostree/revoked.ed25519.d; do
        for key in "${dracutsysrootdir-}$directory"/*; do
            [[ -f $key ]] && inst_simple "$key" "${key#"${dracutsysrootdir-}"}"
        done
    done

    # A failure must end in emergency.target (which reboots), so both are required, not only wanted.
    $SYSTEMCTL -q --root "$initdir" add-requires initrd-root-fs.target slipway-prepare-root.service
    $SYSTEMCTL -q --root "$initdir" add-wants sysinit.target slipway-fresh-ids.service

    # Entries have no root=; this generator would then make a sysroot.mount for a partition that does not exist, and
    # the boot would wait for it. The other one complains on machines without vsock.
    rm -f "$initdir$systemdutildir"/system-generators/systemd-{gpt-auto,ssh}-generator
}
