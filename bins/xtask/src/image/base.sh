# The base layer's own touch, run by mmdebstrap with the new root as $1: two users with a life of their own, and only
# the units that a test machine needs.
set -eu
root=$1

for user in alice bob; do
    chroot "$root" useradd --create-home --shell /bin/bash "$user"
    chroot "$root" passwd --quiet --delete "$user"
done
chroot "$root" passwd --quiet --delete root

# Both have a user manager from the boot on; alice also sits at the seat.
mkdir -p "$root/var/lib/systemd/linger"
touch "$root/var/lib/systemd/linger/alice" "$root/var/lib/systemd/linger/bob"
mkdir -p "$root/etc/systemd/system/getty@tty1.service.d"
cat > "$root/etc/systemd/system/getty@tty1.service.d/autologin.conf" <<'UNIT'
[Service]
ExecStart=
ExecStart=-/sbin/agetty --autologin alice --noclear %I linux
UNIT

echo virtagent-test > "$root/etc/hostname"
printf '127.0.0.1 localhost virtagent-test\n' > "$root/etc/hosts"
echo 0123456789abcdef0123456789abcdef > "$root/etc/machine-id"
: > "$root/etc/fstab"
# Records of the whole run, in memory.
mkdir -p "$root/etc/systemd/journald.conf.d"
printf '[Journal]\nStorage=volatile\nRateLimitBurst=0\n' > "$root/etc/systemd/journald.conf.d/test.conf"

# Each of these costs start time under emulation and no test looks at it.
for unit in \
    apt-daily.timer apt-daily-upgrade.timer dpkg-db-backup.timer e2scrub_all.timer e2scrub_reap.service fstrim.timer \
    logrotate.timer man-db.timer systemd-tmpfiles-clean.timer \
    systemd-timesyncd.service systemd-networkd.service systemd-networkd.socket systemd-networkd-wait-online.service \
    systemd-network-generator.service systemd-resolved.service networking.service \
    systemd-random-seed.service systemd-pstore.service systemd-journal-flush.service systemd-hwdb-update.service \
    systemd-sysusers.service systemd-firstboot.service systemd-machine-id-commit.service systemd-journal-catalog-update.service \
    systemd-boot-system-token.service systemd-update-done.service systemd-binfmt.service systemd-repart.service \
    systemd-fsck-root.service systemd-remount-fs.service systemd-rfkill.socket systemd-initctl.socket \
    systemd-modules-load.service systemd-sysctl.service kmod-static-nodes.service ldconfig.service \
    systemd-ask-password-console.path systemd-ask-password-wall.path systemd-quotacheck.service quotaon.service \
    proc-sys-fs-binfmt_misc.automount dev-hugepages.mount dev-mqueue.mount sys-kernel-debug.mount \
    sys-kernel-tracing.mount sys-kernel-config.mount sys-fs-fuse-connections.mount \
    modprobe@configfs.service modprobe@dm_mod.service modprobe@drm.service modprobe@efi_pstore.service \
    modprobe@fuse.service modprobe@loop.service \
    keyboard-setup.service console-setup.service systemd-vconsole-setup.service getty-static.service \
    serial-getty@ttyS0.service; do
    ln -sf /dev/null "$root/etc/systemd/system/$unit"
done

rm -rf "$root"/var/cache/apt/* "$root"/var/lib/apt/lists/* "$root"/var/log/apt "$root"/var/log/dpkg.log \
    "$root"/boot/initrd.img* "$root"/usr/share/locale
