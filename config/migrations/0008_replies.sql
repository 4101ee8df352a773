-- Answers to campaign mail: where a tenant wants those that are no unsubscribe, and who was asked what was meant.

-- Sealed by the master key; with it, campaign mail without a Reply-To of its own gets one that leads here.
ALTER TABLE tenant ADD COLUMN reply_address bytea;

-- Who was last asked when: at most once a day. Rows that are older than that are deleted by the next question.
CREATE TABLE reply_question (
    person bigint PRIMARY KEY,
    asked_at timestamptz NOT NULL
);
-- Serves that deletion.
CREATE INDEX reply_question_asked ON reply_question (asked_at);
