# The second layer: the base tree with the packages on top, as a disk image.
# Run as root, or as the root of a user namespace: layer.sh SCRATCH IMAGE BASE.tar [PACKAGE.deb ...]
set -eu
scratch=$1 image=$2 base=$3
shift 3

tree=$scratch/root
mkdir "$tree"
tar -x -f "$base" -C "$tree" --numeric-owner --exclude='./dev/*'

if [ $# -gt 0 ]; then
    mkdir "$tree/packages"
    cp "$@" "$tree/packages/"
    # /dev/null is what maintainer scripts want of /dev; a plain file does for the moment.
    : > "$tree/dev/null"
    chmod 666 "$tree/dev/null"
    DEBIAN_FRONTEND=noninteractive chroot "$tree" /bin/sh -c 'dpkg --install /packages/*.deb'
    # The packages stay, for the test that installs them in a running guest.
    rm -f "$tree/dev/null"

    # The owner of this guest trusts its host: root-level file.* and exec.* are on, by the marked line of the packaged policy.
    config=$tree/etc/virtagent/virtagentd.toml
    if [ -f "$config" ]; then
        sed -i 's/^# *\(.*\) *# *TRUST-THE-HOST.*$/\1/' "$config"
    fi
fi

# No journal, no checksums: this disk is thrown away after each boot. No mount and no loop device needed.
mke2fs -q -F -t ext4 -O ^has_journal,^metadata_csum,^metadata_csum_seed,^orphan_file -m 0 -L root -d "$tree" "$image" 2G
