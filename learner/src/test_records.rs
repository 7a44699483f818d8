//! Records for unit tests; what a test looks at it sets itself.

use shared::ids::{PolicyVersion, Ticket};
use shared::record::{FinishReason, GroupRecord, Precision, ResponseRecord, Reward};

/// A group with a prompt of one token and no image.
pub(crate) fn group(ticket: u64, responses: Vec<ResponseRecord>) -> GroupRecord {
    GroupRecord {
        ticket: Ticket(ticket),
        sample_id: ticket.to_string(),
        prompt_ids: vec![1],
        images: Vec::new(),
        temperature: 1.0,
        precision: Precision::F32,
        greedy_reward: None,
        responses,
    }
}

/// A response of `len` tokens by version 0, all wrong.
pub(crate) fn response(len: usize) -> ResponseRecord {
    ResponseRecord {
        token_ids: vec![1; len],
        finish_reason: FinishReason::Stop,
        first_version: PolicyVersion(0),
        last_version: PolicyVersion(0),
        reward: Reward {
            total: 0.0,
            accuracy: 0.0,
            format: 0.0,
            overlong: 0.0,
        },
        logprobs: vec![-1.0; len],
        blank_logprobs: vec![-1.0; len],
        entropies: vec![0.0; len],
        blank_entropies: vec![0.0; len],
    }
}
