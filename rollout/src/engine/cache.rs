//! Keys and values of the tokens seen so far, in blocks that sequences take and give back.
//!
//! `// N blocks, L layers, K kv heads, D head dim, Dl = ceil(D / 16) lanes of 16`
//!
//! A prompt's blocks are filled once and read by every response of its group; each response has blocks of its own
//! for what it says. Nothing is ever copied or moved.

use std::ops::Range;

use memmap2::MmapMut;
use models::config::TextConfig;

use super::kernel::lanes::{LANES, Lanes};
use crate::error::{Error, Result};

/// Tokens in a block.
pub(super) const BLOCK: usize = 32;

/// Blocks that hold `tokens` tokens.
#[must_use]
pub fn blocks_of(tokens: usize) -> usize {
    tokens.div_ceil(BLOCK)
}

/// What a part of a block holds.
#[derive(Debug, Clone, Copy)]
pub(super) enum Kind {
    /// `[D, BLOCK]`: a query is multiplied with sixteen tokens at a time.
    Keys,
    /// `[BLOCK, Dl]`.
    Values,
}

/// Where things are: `[N, L, 2, K, block]`, a block of one head being `BLOCK * Dl` lanes.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct CacheLayout {
    pub(super) num_layers: usize,
    pub(super) num_kv_heads: usize,
    pub(super) head_dim: usize,
}

impl CacheLayout {
    fn new(config: &TextConfig) -> Self {
        Self {
            num_layers: config.num_layers,
            num_kv_heads: config.num_kv_heads,
            head_dim: config.head_dim,
        }
    }

    /// Lanes of one head's keys or values in a block.
    fn head_lanes(&self) -> usize {
        BLOCK * self.head_dim.div_ceil(LANES)
    }

    /// Lanes of a block, all layers.
    pub(super) fn block_lanes(&self) -> usize {
        self.num_layers * 2 * self.num_kv_heads * self.head_lanes()
    }

    /// The lanes of one head's keys or values.
    #[inline]
    pub(super) fn at(&self, block: usize, layer: usize, kind: Kind, head: usize) -> Range<usize> {
        let pair = (block * self.num_layers + layer) * 2 + kind as usize;
        let start = (pair * self.num_kv_heads + head) * self.head_lanes();
        start..start + self.head_lanes()
    }
}

/// A pool of blocks.
///
/// Blocks are first promised, then taken one by one as tokens come: a sequence that was admitted never runs out, and memory
/// is touched only for tokens that are there.
#[derive(Debug)]
pub struct KvCache {
    layout: CacheLayout,
    /// None when there is no block.
    memory: Option<MmapMut>,
    num_blocks: usize,
    /// Those from here on have never been used.
    num_touched: usize,
    /// Free ones, those touched last on top.
    free: Vec<u32>,
    /// Of the free ones, how many are promised.
    promised: usize,
}

impl KvCache {
    /// `num_blocks` free blocks. Memory is the system's until tokens come.
    ///
    /// # Errors
    /// More than the system can give, or more blocks than have numbers.
    pub fn new(config: &TextConfig, num_blocks: usize) -> Result<Self> {
        let layout = CacheLayout::new(config);
        let refused = |reason: String| Error::Cache { reason };
        let count = i32::try_from(num_blocks)
            .ok()
            .and_then(|count| u32::try_from(count).ok());
        let count = count.ok_or_else(|| refused(format!("{num_blocks} blocks are too many")))?;
        let bytes = num_blocks
            .checked_mul(layout.block_lanes() * size_of::<Lanes>())
            .ok_or_else(|| refused(format!("{num_blocks} blocks are too many")))?;
        let memory = (bytes > 0).then(|| MmapMut::map_anon(bytes)).transpose();
        let memory = memory.map_err(|error| {
            refused(format!(
                "{} MiB: {error}; lower --rows or --kv-cache-mib",
                bytes >> 20
            ))
        })?;
        Ok(Self {
            layout,
            memory,
            num_blocks,
            num_touched: 0,
            free: (0..count).rev().collect(),
            promised: 0,
        })
    }

    /// Bytes of a block, keys and values of all layers.
    #[must_use]
    pub fn block_bytes(config: &TextConfig) -> usize {
        CacheLayout::new(config).block_lanes() * size_of::<Lanes>()
    }

    /// Blocks, free or not.
    #[must_use]
    pub fn num_blocks(&self) -> usize {
        self.num_blocks
    }

    /// Blocks that may still be promised.
    #[must_use]
    pub fn num_available(&self) -> usize {
        self.free.len() - self.promised
    }

    /// Promises `count` blocks; false, and nothing happens, when so many are not to be had.
    pub fn promise(&mut self, count: usize) -> bool {
        let is_there = count <= self.num_available();
        if is_there {
            self.promised += count;
        }
        is_there
    }

    /// Hands out promised blocks until `blocks` has room for `tokens`.
    ///
    /// # Errors
    /// More than was promised.
    pub fn extend(&mut self, blocks: &mut Vec<u32>, tokens: usize) -> Result<()> {
        while blocks.len() < blocks_of(tokens) {
            let block = (self.promised > 0).then(|| self.free.pop()).flatten();
            let block = block.ok_or_else(|| Error::Cache {
                reason: "a sequence is longer than the blocks promised to it".to_owned(),
            })?;
            self.touch(block as usize);
            blocks.push(block);
            self.promised -= 1;
        }
        Ok(())
    }

    /// Asks the system for all memory of a block that is used for the first time: many rows come to a new block in the same
    /// step, and faults, one for every page, would hold it up.
    fn touch(&mut self, block: usize) {
        if block < self.num_touched {
            return;
        }
        self.num_touched = block + 1;
        #[cfg(target_os = "linux")]
        if let Some(memory) = &self.memory {
            let bytes = self.layout.block_lanes() * size_of::<Lanes>();
            // Older systems do not know this call: the pages then come one by one.
            let _ = memory.advise_range(memmap2::Advice::PopulateWrite, block * bytes, bytes);
        }
    }

    /// Takes blocks back, and what is left of a promise of `promised` blocks that they were taken from.
    pub fn give_back(&mut self, blocks: &mut Vec<u32>, promised: usize) {
        self.promised = self
            .promised
            .saturating_sub(promised.saturating_sub(blocks.len()));
        self.free.append(blocks);
    }

    /// More blocks, for a pool without a limit. What they hold stays.
    ///
    /// # Errors
    /// As for [`Self::new`].
    pub fn grow(&mut self, config: &TextConfig, num_blocks: usize) -> Result<()> {
        if num_blocks <= self.num_blocks {
            return Ok(());
        }
        // Twice as many, so that growing stays rare; what is not touched costs nothing.
        let mut larger = Self::new(config, num_blocks.max(2 * self.num_blocks))?;
        if let (Some(new), Some(old)) = (&mut larger.memory, &self.memory) {
            new[..old.len()].copy_from_slice(old);
        }
        larger.num_touched = self.num_blocks;
        let known = u32::try_from(self.num_blocks).unwrap_or(u32::MAX);
        larger.free.retain(|&block| block >= known);
        larger.free.append(&mut self.free);
        larger.promised = self.promised;
        *self = larger;
        Ok(())
    }

    /// All of it, f32 `[N, L, 2, K, block]`.
    pub(super) fn values_mut(&mut self) -> &mut [f32] {
        match &mut self.memory {
            Some(memory) => bytemuck::cast_slice_mut(memory),
            None => &mut [],
        }
    }

    /// The shape of [`Self::values_mut`].
    pub(super) fn shape(&self) -> [usize; 5] {
        [
            self.num_blocks,
            self.layout.num_layers,
            2,
            self.layout.num_kv_heads,
            self.layout.head_lanes() * LANES,
        ]
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    fn config() -> TextConfig {
        let model = ::tests::Fixtures::open().unwrap().model();
        models::config::ModelConfig::from_dir(&model).unwrap().text
    }

    proptest! {
        /// No block has two owners, none is lost, and what was promised is there.
        #[test]
        fn blocks_have_one_owner(num_blocks in 1_usize..40, wishes in prop::collection::vec((1_usize..9, 0_usize..300, any::<bool>()), 1..60)) {
            let config = config();
            let mut cache = KvCache::new(&config, num_blocks).unwrap();
            let mut owners: Vec<(usize, Vec<u32>)> = Vec::new();
            for (promise, tokens, gives_back) in wishes {
                if cache.promise(promise) {
                    let mut blocks = Vec::new();
                    cache.extend(&mut blocks, tokens.min(promise * BLOCK)).unwrap();
                    owners.push((promise, blocks));
                }
                if gives_back && !owners.is_empty() {
                    let (promise, mut blocks) = owners.remove(tokens % owners.len());
                    cache.give_back(&mut blocks, promise);
                }
                let promised: usize = owners.iter().map(|(promise, _)| promise).sum();
                prop_assert_eq!(cache.num_available(), num_blocks - promised);
                let mut taken: Vec<u32> = owners.iter().flat_map(|(_, blocks)| blocks.clone()).collect();
                taken.sort_unstable();
                taken.dedup();
                prop_assert_eq!(taken.len(), owners.iter().map(|(_, blocks)| blocks.len()).sum::<usize>());
            }
        }
    }

    #[test]
    fn growing_keeps_blocks_and_what_they_hold() {
        let config = config();
        let mut cache = KvCache::new(&config, 2).unwrap();
        assert!(cache.promise(2) && !cache.promise(1));
        let mut blocks = Vec::new();
        cache.extend(&mut blocks, 2 * BLOCK).unwrap();
        assert!(cache.extend(&mut blocks.clone(), 3 * BLOCK).is_err());
        cache.values_mut()[5] = 7.0;
        cache.grow(&config, 5).unwrap();
        assert_eq!((cache.num_blocks(), cache.num_available()), (5, 3));
        assert_eq!(cache.values_mut()[5], 7.0);
        assert!(cache.promise(3));
        let mut more = Vec::new();
        cache.extend(&mut more, 3 * BLOCK).unwrap();
        more.append(&mut blocks);
        more.sort_unstable();
        assert_eq!(more, [0, 1, 2, 3, 4]);
    }

    #[test]
    fn parts_of_the_cache_do_not_overlap() {
        let layout = CacheLayout {
            num_layers: 3,
            num_kv_heads: 2,
            head_dim: 24,
        };
        let mut seen = vec![0; 4 * layout.block_lanes()];
        for (block, layer, head) in
            (0..4).flat_map(|b| (0..3).flat_map(move |l| (0..2).map(move |h| (b, l, h))))
        {
            for kind in [Kind::Keys, Kind::Values] {
                seen[layout.at(block, layer, kind, head)]
                    .iter_mut()
                    .for_each(|n| *n += 1);
            }
        }
        assert!(seen.iter().all(|&n| n == 1));
    }
}
