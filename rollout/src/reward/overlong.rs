//! DAPO's soft overlong punishment: 0 up to the buffer, then a line down to the largest punishment at the limit.

use super::RewardConfig;

/// In [-overlong_penalty, 0].
#[must_use]
pub fn overlong_penalty(num_tokens: usize, config: &RewardConfig) -> f32 {
    let buffer = config.overlong_buffer.min(config.max_response_tokens);
    let excess = num_tokens
        .saturating_sub(config.max_response_tokens - buffer)
        .min(buffer);
    if excess == 0 {
        return 0.0;
    }
    #[expect(
        clippy::cast_possible_truncation,
        clippy::cast_precision_loss,
        reason = "a ratio of token counts"
    )]
    let share = (excess as f64 / buffer as f64) as f32;
    -config.overlong_penalty * share
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_line_over_the_buffer() {
        let config = RewardConfig {
            accuracy_weight: 1.0,
            format_weight: 0.0,
            overlong_buffer: 4,
            overlong_penalty: 2.0,
            max_response_tokens: 20,
        };
        let penalty = |tokens| overlong_penalty(tokens, &config);
        assert_eq!(
            [
                penalty(0),
                penalty(16),
                penalty(17),
                penalty(18),
                penalty(20),
                penalty(99)
            ],
            [0.0, 0.0, -0.5, -1.0, -2.0, -2.0]
        );
        let off = RewardConfig {
            overlong_buffer: 0,
            ..config
        };
        assert_eq!(overlong_penalty(20, &off), 0.0);
        let wide = RewardConfig {
            overlong_buffer: 99,
            ..config
        };
        assert_eq!(overlong_penalty(10, &wide), -1.0);
    }
}
