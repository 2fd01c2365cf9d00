//! What the processor calls itself.

/// The name that x86 processors have in themselves; `None` of others.
pub fn brand() -> Option<String> {
    #[cfg(target_arch = "x86_64")]
    {
        use std::arch::x86_64::__cpuid;
        const FIRST: u32 = 0x8000_0002;
        const LAST: u32 = 0x8000_0004;
        if __cpuid(0x8000_0000).eax < LAST {
            return None;
        }
        let words = (FIRST..=LAST).map(__cpuid).flat_map(|part| [part.eax, part.ebx, part.ecx, part.edx]);
        let bytes: Vec<u8> = words.flat_map(u32::to_le_bytes).take_while(|byte| *byte != 0).collect();
        let name = String::from_utf8_lossy(&bytes).trim().to_owned();
        Some(name).filter(|name| !name.is_empty())
    }
    #[cfg(not(target_arch = "x86_64"))]
    None
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Linux tells what the processor says.
    #[test]
    fn it_is_the_one_that_the_system_tells() {
        let told = std::fs::read_to_string("/proc/cpuinfo").unwrap_or_default();
        let line = told.lines().find_map(|line| line.strip_prefix("model name")?.split_once(':'));
        if let (Some((_, name)), Some(brand)) = (line, brand()) {
            assert_eq!(brand, name.trim());
        }
    }
}
