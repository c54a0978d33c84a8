import type { ChatMessage } from './api-client.ts';

/** What was said so far. An answer that was cut off counts with what there was of it. */
export class ChatHistory {
  #messages: ChatMessage[] = [];

  get messages(): readonly ChatMessage[] {
    return this.#messages;
  }

  ask(content: string): void {
    this.#messages.push({ role: 'user', content });
  }

  /** Ends a turn; without any answer the question is taken back, so that roles go on taking turns. */
  answer(content: string): void {
    if (content === '') this.#messages.pop();
    else this.#messages.push({ role: 'assistant', content });
  }

  /** Drops the oldest question and its answer; false where the last question is all there is. */
  forgetOldest(): boolean {
    if (this.#messages.length < 2) return false;
    this.#messages.splice(0, 2);
    return true;
  }

  clear(): void {
    this.#messages = [];
  }
}
