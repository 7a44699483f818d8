//! ReMax: the greedy response beside each group, while the learner asks for it.

use crate::generated;
use crate::run_folder::Run;

/// Pays for the length of a response, so that hardly two of them are paid the same.
const BY_LENGTH: &str = r#"--verifier-command=while IFS= read -r line; do
    id=${line#*:}; rest=${line#*,}; echo "{\"id\": ${id%%,*}, \"accuracy\": 0.$((${#rest} % 900 + 100))}"
done"#;

#[test]
fn records_have_the_reward_of_a_greedy_response_while_the_learner_asks_for_it() {
    let sampled = generated(&[&[BY_LENGTH]], 7);
    // As good as greedy.
    let cold = generated(&[&[BY_LENGTH, "--temperature", "0.00001"]], 7);
    let mut run = Run::new();
    run.start(&[BY_LENGTH]);
    run.open(0..3);
    run.wait_for(3);
    // The learner that goes on with the run asks for something else, and the next one no longer does.
    run.control.ask_greedy(true);
    run.open(3..7);
    run.wait_for(7);
    run.control.ask_greedy(false);
    run.open(7..10);
    run.wait_for(10);
    let mut num_other = 0;
    for (ticket, mut record) in run.finish() {
        if !(3..7).contains(&ticket.0) {
            assert_eq!(record.greedy_reward, None, "{ticket}: nobody asks for it");
            continue;
        }
        let greedy = record.greedy_reward.take();
        let expected = cold[&ticket].responses.first().map(|first| first.reward);
        assert_eq!(greedy, expected, "{ticket}");
        // The responses are as without it.
        assert_eq!(record, sampled[&ticket]);
        let responses = record.responses.iter();
        num_other += responses.filter(|one| Some(one.reward) != greedy).count();
    }
    assert!(num_other > 0);
}
