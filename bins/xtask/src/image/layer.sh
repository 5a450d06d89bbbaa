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

    # The owner of this guest trusts its host: the marked line of the packaged policy is uncommented.
    config=$tree/etc/virtagent/virtagentd.toml
    mark='<-- uncomment to let the host act as root'
    sed -i "s/^\\( *\\)#\\({.*$mark\\)/\\1\\2/" "$config"
    grep -q "^ *{.*$mark" "$config" || { echo "the packaged policy has no marked line ($mark)" >&2; exit 1; }
fi

# No journal, no checksums: this disk is thrown away after each boot. No mount and no loop device needed.
mke2fs -q -F -t ext4 -O ^has_journal,^metadata_csum,^metadata_csum_seed,^orphan_file -m 0 -L root -d "$tree" "$image" 2G
