-- An order has two parts, a state and a schedule, and each keeps who gave it, when and why: one of them given anew said that
-- it was the other too, and moved the time up to which a cancel reaches. cancelled_at: when it was cancelled before it
-- was resumed or paused; what was accepted until then stays cancelled.
ALTER TABLE standing_order
    ADD COLUMN cancelled_at timestamptz,
    ADD COLUMN scheduled_at timestamptz,
    ADD COLUMN scheduler text NOT NULL DEFAULT '',
    ADD COLUMN schedule_reason text NOT NULL DEFAULT '';
UPDATE standing_order
SET scheduled_at = at, scheduler = actor, schedule_reason = reason
WHERE not_before IS NOT NULL OR send_window <> '';
