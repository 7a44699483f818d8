//! How much of a stranger's file we are willing to hold.

/// Limits of a data set. A file beyond a file's limit is refused; a row beyond a row's limit is an error of that row alone.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct DatasetLimits {
    /// Rows of all files together.
    pub max_rows: usize,
    /// Files of one split.
    pub max_files: usize,
    /// A parquet footer.
    pub max_footer_bytes: usize,
    /// A parquet page, as it is stored and as it declares itself unpacked.
    pub max_page_bytes: usize,
    /// The columns we read of one parquet row group, stored and unpacked.
    pub max_row_group_bytes: usize,
    /// Values of one column in one parquet row group.
    pub max_row_group_values: usize,
    /// A line of a JSON lines file.
    pub max_line_bytes: usize,
    /// A problem, an answer, a solution.
    pub max_text_bytes: usize,
    /// Images of one row.
    pub max_images: usize,
    /// An encoded image.
    pub max_image_bytes: usize,
    /// The images of one row together.
    pub max_row_bytes: usize,
    /// Unpacked row groups that are kept in memory; the newest one always is.
    pub cache_bytes: usize,
}

impl Default for DatasetLimits {
    fn default() -> Self {
        const MIB: usize = 1 << 20;
        Self {
            max_rows: 10_000_000,
            max_files: 10_000,
            max_footer_bytes: 16 * MIB,
            max_page_bytes: 256 * MIB,
            max_row_group_bytes: 1024 * MIB,
            max_row_group_values: 4_000_000,
            max_line_bytes: 4 * MIB,
            max_text_bytes: MIB,
            max_images: 64,
            max_image_bytes: 64 * MIB,
            max_row_bytes: 64 * MIB,
            cache_bytes: 512 * MIB,
        }
    }
}
