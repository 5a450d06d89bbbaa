//! What this guest runs on, as far as the kernel shows it to everybody.

use std::fs::read_to_string;
use std::path::Path;

/// What firmware says (`/sys/class/dmi/id`), in the words of systemd-detect-virt(1). The first that fits counts.
const FIRMWARE: [(&str, &str); 12] = [
    ("Amazon EC2", "amazon"),
    ("Google Compute Engine", "google"),
    ("VMware", "vmware"),
    ("VMW", "vmware"),
    ("VirtualBox", "oracle"),
    ("innotek GmbH", "oracle"),
    ("Xen", "xen"),
    ("Parallels", "parallels"),
    ("BHYVE", "bhyve"),
    ("Hyper-V", "microsoft"),
    ("Apple Virtualization", "apple"),
    ("Bochs", "bochs"),
];

/// The hypervisor; nothing on bare metal.
pub(crate) fn detect(root: &Path) -> Option<&'static str> {
    let text = |path: &str| read_to_string(root.join(path)).unwrap_or_default();
    let firmware = ["sys_vendor", "product_name", "product_version", "board_vendor", "bios_vendor"]
        .map(|name| text(&format!("sys/class/dmi/id/{name}")))
        .join("\n");
    if let Some((_, name)) = FIRMWARE.iter().find(|(says, _)| firmware.contains(says)) {
        return Some(name);
    }
    // Hyper-V's firmware has the name of its maker, who makes real machines too.
    if firmware.contains("Microsoft Corporation") && firmware.contains("Virtual Machine") {
        return Some("microsoft");
    }
    if text("sys/hypervisor/type").trim() == "xen" {
        return Some("xen");
    }
    // QEMU's firmware is the same with and without KVM; KVM brings a clock that nothing else has.
    let clocks = text("sys/devices/system/clocksource/clocksource0/available_clocksource");
    let device_tree = text("proc/device-tree/hypervisor/compatible");
    if clocks.split_whitespace().any(|clock| clock == "kvm-clock") || device_tree.contains("linux,kvm") {
        return Some("kvm");
    }
    if firmware.contains("QEMU") {
        return Some("qemu");
    }
    let flags = text("proc/cpuinfo");
    let flags = flags.lines().find(|line| line.starts_with("flags"));
    flags.is_some_and(|flags| flags.split_whitespace().any(|flag| flag == "hypervisor")).then_some("vm-other")
}

#[cfg(test)]
mod tests {
    use super::*;

    const DMI: &str = "sys/class/dmi/id/";
    const CLOCKS: &str = "sys/devices/system/clocksource/clocksource0/available_clocksource";

    fn detected(files: &[(&str, &str)]) -> Option<&'static str> {
        let root = tempfile::tempdir().unwrap();
        for (path, text) in files {
            let path = root.path().join(path);
            std::fs::create_dir_all(path.parent().unwrap()).unwrap();
            std::fs::write(path, text).unwrap();
        }
        detect(root.path())
    }

    #[test]
    fn a_guest_of_qemu_tells_whether_kvm_runs_it() {
        let vendor = format!("{DMI}sys_vendor");
        assert_eq!(detected(&[(&vendor, "QEMU\n"), (CLOCKS, "tsc hpet acpi_pm \n")]), Some("qemu"));
        assert_eq!(detected(&[(&vendor, "QEMU\n"), (CLOCKS, "kvm-clock tsc acpi_pm \n")]), Some("kvm"));
        assert_eq!(detected(&[("proc/device-tree/hypervisor/compatible", "linux,kvm\0")]), Some("kvm"));
    }

    #[test]
    fn other_hypervisors_are_named_by_their_firmware() {
        let vendor = format!("{DMI}sys_vendor");
        let product = format!("{DMI}product_name");
        assert_eq!(detected(&[(&vendor, "VMware, Inc.\n")]), Some("vmware"));
        assert_eq!(detected(&[(&vendor, "innotek GmbH\n"), (&product, "VirtualBox\n")]), Some("oracle"));
        let microsoft = [(vendor.as_str(), "Microsoft Corporation\n"), (product.as_str(), "Virtual Machine\n")];
        assert_eq!(detected(&microsoft), Some("microsoft"));
        assert_eq!(detected(&[(&vendor, "Amazon EC2\n"), (CLOCKS, "kvm-clock tsc\n")]), Some("amazon"));
    }

    #[test]
    fn an_unknown_hypervisor_is_one_and_bare_metal_is_none() {
        assert_eq!(detected(&[("proc/cpuinfo", "processor : 0\nflags\t\t: fpu hypervisor lm\n")]), Some("vm-other"));
        let metal = [("proc/cpuinfo", "processor : 0\nflags\t\t: fpu lm\n"), (CLOCKS, "tsc hpet\n")];
        assert_eq!(detected(&metal), None);
        let laptop = format!("{DMI}sys_vendor");
        assert_eq!(detected(&[(&laptop, "Microsoft Corporation\n"), ("x", "Surface")]), None);
    }
}
