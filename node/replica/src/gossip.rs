//! Drives the failure detector.

use quorate_core::membership::{Action, Message, State};
use quorate_wire::peer::Frame;

use crate::interface::{Effect, Sender};
use crate::replica::Replica;
use crate::storage::Storage;

impl<S: Storage> Replica<S> {
    pub(crate) fn hear(&mut self, sender: Sender, epoch: u64, position: u64, message: Message) {
        let from = sender.node;
        if message.from() != from {
            self.stats.gossip_refused += 1;
            return;
        }
        self.hear_position(sender, position);
        self.membership.time_of_day(self.now.unix_ms);
        match self.membership.handle(message, self.now.mono, &mut self.dice) {
            Ok(actions) => self.carry_out(actions),
            Err(_) => self.stats.gossip_refused += 1,
        }
        // Only now is the sender known, and where it is.
        if epoch > self.ring.number() {
            self.fetch_epoch(from);
        }
    }

    pub(crate) fn carry_out(&mut self, actions: Vec<Action>) {
        let (epoch, position) = (self.ring.number(), self.synced_position());
        for action in actions {
            match action {
                Action::Send { to, message } => {
                    self.effects.push(Effect::Send { to, frame: Frame::Gossip { epoch, position, message } });
                }
                Action::Changed(view) => {
                    let (node, state) = (view.node.id, view.state);
                    self.effects.push(Effect::Changed(view));
                    match state {
                        State::Down => {
                            self.lose_calls(node);
                            // Whoever was removed is not gossiped with any more, and finds that all are down: they tell.
                            self.fetch_epoch(node);
                        }
                        State::Up => {
                            self.ask_mark(node);
                            self.exchange_soon(node);
                            self.handoff_soon(node);
                        }
                        State::Suspect | State::Left => {}
                    }
                }
            }
        }
    }
}
