//! What a batch is made of: how many groups, how old they may be, and which of them teach nothing.

use shared::config::GroupFilter;
use shared::ids::PolicyVersion;
use shared::record::GroupRecord;

/// What a batch needs.
#[derive(Clone, Copy, Debug)]
pub struct Sampling {
    /// Groups of a rollout batch, after filtering.
    pub batch_prompts: usize,
    /// How often a batch is filled up before it is taken as it is.
    pub max_rounds: usize,
    /// Versions that a record may be behind; 0 is strictly on-policy.
    pub max_staleness: u64,
    /// Which groups teach nothing.
    pub group_filter: GroupFilter,
    /// Whether a group is of no use without the reward of a greedy response.
    pub needs_greedy: bool,
}

/// Why a group is in no batch.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Dropped {
    /// The rollout could not make it.
    Skipped,
    /// Every response is right.
    AllRight,
    /// Every response is wrong.
    AllWrong,
    /// All total rewards are equal.
    AllEqual,
}

impl Sampling {
    /// Whether a record has the baseline that this run needs. One of a sample that was passed over needs none.
    #[must_use]
    pub fn has_baseline(&self, record: &GroupRecord) -> bool {
        !self.needs_greedy || record.greedy_reward.is_some() || record.responses.is_empty()
    }

    /// Whether every token of a group comes from a version that may still be trained on.
    #[must_use]
    pub fn is_fresh(&self, record: &GroupRecord, current: PolicyVersion) -> bool {
        let oldest = current.0.saturating_sub(self.max_staleness);
        record
            .responses
            .iter()
            .all(|response| response.first_version.0 >= oldest && response.last_version <= current)
    }

    /// Why nothing can be learnt from a group, if so.
    #[must_use]
    pub fn reason_to_drop(&self, record: &GroupRecord) -> Option<Dropped> {
        let responses = &record.responses;
        let mut lens = responses.iter().map(|response| response.token_ids.len());
        if responses.is_empty() || lens.any(|len| len == 0) {
            return Some(Dropped::Skipped);
        }
        let num_right = responses
            .iter()
            .filter(|response| response.reward.accuracy > 0.0)
            .count();
        let is_all_equal = responses
            .windows(2)
            .all(|pair| pair[0].reward.total == pair[1].reward.total);
        match self.group_filter {
            GroupFilter::Accuracy if num_right == responses.len() => Some(Dropped::AllRight),
            GroupFilter::Accuracy if num_right == 0 => Some(Dropped::AllWrong),
            GroupFilter::Overall if is_all_equal => Some(Dropped::AllEqual),
            GroupFilter::Off | GroupFilter::Accuracy | GroupFilter::Overall => None,
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::test_records::{group, response};

    fn sampling(group_filter: GroupFilter) -> Sampling {
        Sampling {
            batch_prompts: 1,
            max_rounds: 1,
            max_staleness: 2,
            group_filter,
            needs_greedy: false,
        }
    }

    /// A group with a response for each pair of accuracy and format.
    fn of(parts: &[(f32, f32)]) -> GroupRecord {
        let responses = parts.iter().map(|&(accuracy, format)| {
            let mut response = response(1);
            response.reward.accuracy = accuracy;
            response.reward.format = format;
            response.reward.total = accuracy + format;
            response
        });
        group(0, responses.collect())
    }

    #[test]
    fn each_filter_has_its_key() {
        use GroupFilter::{Accuracy, Off, Overall};
        let (right, wrong, formed) = ((1.0, 0.0), (0.0, 0.0), (0.0, 1.0));
        let cases = [
            (vec![right, wrong], [None; 3]),
            (
                vec![right, right],
                [Some(Dropped::AllRight), Some(Dropped::AllEqual), None],
            ),
            // Well formed or not: all wrong is all wrong, though their totals differ.
            (vec![wrong, formed], [Some(Dropped::AllWrong), None, None]),
            // And one right and one well formed are worth the same.
            (vec![right, formed], [None, Some(Dropped::AllEqual), None]),
            (Vec::new(), [Some(Dropped::Skipped); 3]),
        ];
        for (parts, expected) in cases {
            let reason = |filter| sampling(filter).reason_to_drop(&of(&parts));
            assert_eq!([Accuracy, Overall, Off].map(reason), expected, "{parts:?}");
        }
        let mut silent = of(&[right, wrong]);
        silent.responses[1].token_ids.clear();
        let reason = sampling(Off).reason_to_drop(&silent);
        assert_eq!(reason, Some(Dropped::Skipped));
    }

    #[test]
    fn a_group_is_as_old_as_its_oldest_token() {
        let mut record = of(&[(1.0, 0.0), (0.0, 0.0)]);
        record.responses[0].first_version = PolicyVersion(3);
        for response in &mut record.responses {
            response.last_version = PolicyVersion(5);
        }
        record.responses[1].first_version = PolicyVersion(5);
        let is_fresh =
            |version| sampling(GroupFilter::Off).is_fresh(&record, PolicyVersion(version));
        assert_eq!([4, 5, 6].map(is_fresh), [false, true, false]);
    }
}
