#!/bin/busybox sh
# The initramfs: the modules of the disk and of the ports, in the order of this kernel's own modules.dep, then the root.
/bin/busybox mount -t proc proc /proc
/bin/busybox mount -t devtmpfs dev /dev
while read -r module; do
    /bin/busybox insmod "$module" || echo "insmod $module failed"
done < /modules.order
tries=0
while [ ! -b /dev/vda ] && [ "$tries" -lt 200 ]; do
    /bin/busybox usleep 20000
    tries=$((tries + 1))
done
/bin/busybox mount -t ext4 /dev/vda /root || { echo "virtagent test image: no root on /dev/vda"; /bin/busybox poweroff -f; }
/bin/busybox mount -o move /dev /root/dev
/bin/busybox umount /proc
exec /bin/busybox switch_root /root /lib/systemd/systemd
