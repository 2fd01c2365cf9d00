//! GGUF bytes that no writer would write.

/// A header under construction, with the widths of its version: lengths have 32 bits in version 1.
pub struct Raw {
    version: u32,
    pub bytes: Vec<u8>,
}

impl Raw {
    pub fn new(version: u32, n_tensors: u64, n_keys: u64) -> Self {
        let mut raw = Self { version, bytes: b"GGUF".to_vec() };
        raw.u32(version).len(n_tensors).len(n_keys);
        raw
    }

    pub fn u32(&mut self, value: u32) -> &mut Self {
        self.bytes.extend(value.to_le_bytes());
        self
    }

    pub fn u64(&mut self, value: u64) -> &mut Self {
        self.bytes.extend(value.to_le_bytes());
        self
    }

    pub fn len(&mut self, value: u64) -> &mut Self {
        if self.version == 1 { self.u32(value as u32) } else { self.u64(value) }
    }

    pub fn string(&mut self, text: &str) -> &mut Self {
        self.len(text.len() as u64);
        self.bytes.extend(text.as_bytes());
        self
    }

    /// A key whose value is a string, such as the architecture.
    pub fn text(&mut self, key: &str, value: &str) -> &mut Self {
        self.string(key).u32(8).string(value)
    }

    /// A key whose value is an array; its elements are up to the caller.
    pub fn array(&mut self, key: &str, element: u32, len: u64) -> &mut Self {
        self.string(key).u32(9).u32(element).len(len)
    }
}

fn find(bytes: &[u8], name: &str) -> usize {
    // The length in front tells `llama.block_count` from a longer key that ends in it.
    let mut wanted = (name.len() as u64).to_le_bytes().to_vec();
    wanted.extend(name.as_bytes());
    let at = bytes.windows(wanted.len()).position(|w| w == wanted).expect("the name is in the header");
    at + wanted.len()
}

/// Overwrites what follows a key, type first.
pub fn patch_key(bytes: &mut [u8], key: &str, value_type: u32, value: &[u8]) {
    let at = find(bytes, key);
    bytes[at..at + 4].copy_from_slice(&value_type.to_le_bytes());
    bytes[at + 4..][..value.len()].copy_from_slice(value);
}

/// Overwrites the shape, type id and offset of a tensor; `None` keeps what is there.
pub fn patch_tensor(bytes: &mut [u8], name: &str, dims: Option<&[u64]>, type_id: Option<u32>, offset: Option<u64>) {
    let at = find(bytes, name);
    let n_dims = u32::from_le_bytes(bytes[at..at + 4].try_into().expect("four bytes")) as usize;
    if let Some(dims) = dims {
        assert_eq!(dims.len(), n_dims, "the number of dimensions stays");
        for (i, dim) in dims.iter().enumerate() {
            bytes[at + 4 + 8 * i..][..8].copy_from_slice(&dim.to_le_bytes());
        }
    }
    let at = at + 4 + 8 * n_dims;
    if let Some(id) = type_id {
        bytes[at..at + 4].copy_from_slice(&id.to_le_bytes());
    }
    if let Some(offset) = offset {
        bytes[at + 4..][..8].copy_from_slice(&offset.to_le_bytes());
    }
}
