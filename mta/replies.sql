-- name: forget_questions
-- Who was asked longer ago than a day may be asked again, and needs no row for that.
DELETE FROM reply_question WHERE asked_at <= to_timestamp($1) - interval '1 day';

-- name: may_ask
-- A row when this person was not asked within a day; then it counts as asked now. Nodes that ask at once take turns.
INSERT INTO reply_question (person, asked_at) VALUES ($1, to_timestamp($2))
ON CONFLICT (person) DO UPDATE SET asked_at = excluded.asked_at
WHERE reply_question.asked_at <= excluded.asked_at - interval '1 day'
RETURNING person;
